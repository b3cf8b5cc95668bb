"""TF32 is off unless requested, also in convolutions, and torch's settings are restored."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from torch_towers.program.precision import full_precision


@pytest.fixture
def restored() -> Generator[None]:
    """torch's settings, put back afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_convolutions_follow_products(asked: bool, before: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = asked, before
    with pytest.raises(ZeroDivisionError), full_precision():
        assert torch.backends.cudnn.allow_tf32 == asked
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32 == before
