"""The garbage collector's state is always restored."""

from __future__ import annotations

import gc

import pytest

from torch_towers.kernels.garbage import set_aside


def test_nothing_stays_frozen() -> None:
    assert gc.get_freeze_count() == 0
    with pytest.raises(KeyError), set_aside():
        assert gc.get_freeze_count() > 1000
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    try:
        with set_aside():
            pass
        assert gc.get_freeze_count() > 0.9 * before > 0
    finally:
        gc.unfreeze()
