"""Identities: equations that hold to the bit, and bring a graph nearer to normal form."""

from __future__ import annotations

from typing import Any

from tests.porting.rewrites.by_hand import lifted, ops

X = {"x": ("float32", ("n", 4))}


def test_times_one() -> None:
    assert ops(lifted(lambda t, x: t.tanh(t.mul(1.0, x)), X)) == ["tanh"]
    assert ops(lifted(lambda t, x: t.tanh(t.mul(2.0, x)), X)) == ["mul", "tanh"]


def rows(t: Any, x: Any, kernel: Any, parted: tuple[int, ...] = (3, 5, 6)) -> Any:
    return t.reshape(t.matmul(t.reshape(x, 15, 4), kernel), *parted)


def test_rows_that_are_joined_and_parted_are_one_matmul() -> None:
    found = lifted(rows, {"x": ("float32", (3, 5, 4))}, {"dense.weight": (4, 6)})
    assert ops(found) == ["module"]


def test_rows_that_are_parted_otherwise_stay() -> None:
    def write(t: Any, x: Any, kernel: Any) -> Any:
        return rows(t, x, kernel, (3, 6, 5))

    assert ops(lifted(write, {"x": ("float32", (3, 5, 4))}, {"dense.weight": (4, 6)})).count("reshape") == 2


def sized(t: Any, x: Any, kernel: Any, bias: Any) -> Any:
    """The two halves of each row as rows, through a product whose size is read before its bias."""
    product = t.conv(t.reshape(x, -1, 2, 2), kernel, strides=(1,), padding="SAME", dilations=(1,), channels_last=True)
    return t.tanh(t.reshape(t.add(product, bias), t.size(product, axis=0), 12))


def test_a_size_is_read_behind_the_bias() -> None:
    found = lifted(sized, X, {"conv.weight": (3, 2, 6), "conv.bias": (6,)})
    assert "add" not in ops(found)
    assert found.counts["Conv1d"] == 1


def test_a_size_that_the_bias_may_change_stays() -> None:
    assert "add" in ops(lifted(sized, X, {"conv.weight": (3, 2, 6), "conv.bias": (1, 1, 6)}))
