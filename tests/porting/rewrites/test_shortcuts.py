"""A branch that leaves out work whose result is known is computed without a branch; near misses stay branches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.porting.rewrites.conftest import Exported

Get = Callable[[str], Exported]
GONE = ("all_ended", "none_ended", "both")
STAY = ("other_step", "other_lengths", "other_result", "of_floats", "other_test")


def batch(lengths: list[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    x, old = rng.normal(0, 1, (2, len(lengths), 4)).astype(np.float32)
    return {"x": x, "old": old, "lengths": np.asarray(lengths, np.int32)}


def test_shortcuts_are_gone(exported: Get) -> None:
    model = exported("shortcuts")
    assert {name: model.kind(name) for name in GONE} == dict.fromkeys(GONE, "where")
    assert {name: model.kind(name) for name in STAY} == dict.fromkeys(STAY, "cond")


@pytest.mark.parametrize("lengths", [[0, 1, 2, 3], [0, 0], [3, 2], [1], [0, 1], [2, 1]])
def test_numbers(exported: Get, lengths: list[int]) -> None:
    """All rows have ended, some, or none."""
    exported("shortcuts").check(batch(lengths))


def test_gradients(exported: Get) -> None:
    exported("shortcuts").check_gradients_of_ops(batch([0, 1, 2, 3]))
