"""Packages that only some uses need are named with the extra that brings them."""

from __future__ import annotations

import json
import sys

import pytest

from torch_towers.errors import TorchTowersError
from torch_towers.extras import need


def test_what_is_there() -> None:
    assert need("json", "bulk") is json


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("faiss", r"^faiss-cpu is needed for this and is not installed: pip install 'torch-towers\[search\]'"),
        ("PIL.Image", "^pillow is needed"),
        ("nothing.of_the_kind", "^nothing is needed"),
    ],
)
def test_what_is_not(module: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with pytest.raises(TorchTowersError, match=said):
        need(module, "search")
