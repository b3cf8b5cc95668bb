"""The fast way to the largest gives what the exact order of floats gives, or leaves it to that."""

from __future__ import annotations

import pytest
import torch

from torch_towers.ops import reductions


@pytest.mark.parametrize("shape", [(600,), (3, 5000), (2, 2, 20001), (1, 0), (0, 600)])
@pytest.mark.parametrize("k", [0, 1, 5, 10])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nan", "zeros", "infinite"])
def test_equals_the_slow_way(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], k: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(shape, generator=generator)
    if kind == "ties":
        x = (x * 3).round()
    elif kind == "zeros":
        x = torch.where(x > 0, 0.0, -0.0)
    elif x.numel():
        x.view(-1)[:: 97 if kind == "nan" else 10**9] = float("nan") if kind == "nan" else float("inf")
    if x.shape[-1] < k:
        return
    fast = reductions.top_k(x, k)
    monkeypatch.setattr(reductions, "_without_ties", lambda x, k: None)
    slow = reductions.top_k(x, k)
    assert torch.equal(fast[1], slow[1])
    assert torch.equal(fast[0].view(torch.int32), slow[0].view(torch.int32))


def test_distinct_values_take_the_fast_way() -> None:
    x = torch.randperm(20001).float()
    found = reductions._without_ties(x, 10)
    assert found is not None and found[0].tolist() == list(range(20000, 19990, -1))
    assert reductions._without_ties(torch.zeros(5000), 3) is None
