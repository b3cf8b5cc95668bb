"""The parameters of the real image, audio and text towers are in layers."""

from __future__ import annotations

import pytest

from porting.saved_model import read
from porting.tower import port_tower
from tests.corpus.catalog import Recorded, catalog

TOWERS = [item for item in catalog() if item.name.startswith(("img-", "aud-", "txt-")) and "bertconv" not in item.name]


@pytest.mark.parametrize("recorded", TOWERS, ids=str)
def test_parameters_are_in_layers(recorded: Recorded) -> None:
    """99% of them, as `make corpus` prints; txt-bertconv-esen is tokenizers alone."""
    assert port_tower(read(recorded.path)).layer_share >= 0.99
    assert port_tower(read(recorded.path), lifts=False).layer_share in (0.0, 1.0), "1 where there are none"
