"""The measures that the port's report and `torch-towers verify` share."""

from __future__ import annotations

import numpy as np

from torch_towers.parity.closeness import rms, same_specials


def test_rms() -> None:
    assert rms(np.array([3.0, -4.0])) == 12.5**0.5
    assert rms(np.zeros(0)) == 0.0


def test_same_specials() -> None:
    nan, inf = float("nan"), float("inf")
    theirs = np.array([1.0, nan, inf, -inf], np.float32)
    assert same_specials(np.array([2.0, nan, inf, -inf]), theirs)
    for place, value in [(1, 0.0), (2, -inf), (3, nan), (2, 1e38)]:
        ours = theirs.copy()
        ours[place] = value
        assert not same_specials(ours, theirs)
