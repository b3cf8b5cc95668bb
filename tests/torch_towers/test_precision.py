"""TF32 is off unless it was asked for, in convolutions too, and afterwards torch is as it was."""

from __future__ import annotations

import pytest
import torch

from torch_towers.precision import full_precision


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_convolutions_follow_products(monkeypatch: pytest.MonkeyPatch, asked: bool, before: bool) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", asked)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with pytest.raises(ZeroDivisionError), full_precision():
        assert torch.backends.cudnn.allow_tf32 == asked
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32 == before
