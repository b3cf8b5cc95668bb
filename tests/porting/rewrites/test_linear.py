"""nn.Linear: a matmul by a weight, with its bias where the bias is its own."""

from __future__ import annotations

from typing import Any

from tests.porting.rewrites.by_hand import layer, lifted, ops

X = {"x": ("float32", ("n", 4))}
KERNEL = {"dense.weight": (4, 6)}
WHOLE = {**KERNEL, "dense.bias": (6,)}


def test_with_a_bias_on_either_side() -> None:
    for write in (lambda t, x, w, b: t.add(t.matmul(x, w), b), lambda t, x, w, b: t.add(b, t.matmul(x, w))):
        found = lifted(write, X, WHOLE)
        assert layer(found) == ("Linear", {"in_features": 4, "out_features": 6, "bias": True})
        assert list(found.graph.modules) == ["dense"]
        assert sorted(found.store) == ["dense.bias", "dense.weight"]
        assert found.store["dense.weight"].shape == (6, 4)  # torch's layout


def test_without_a_bias() -> None:
    assert layer(lifted(lambda t, x, w: t.matmul(x, w), X, KERNEL))[1]["bias"] is False


def test_what_is_added_may_be_no_bias() -> None:
    found = lifted(lambda t, x, w, b: t.add(t.matmul(x, w), b), X, {**KERNEL, "dense.bias": (1, 6)})
    assert layer(found)[1]["bias"] is False
    assert ops(found) == ["module", "add"]


def test_a_kernel_that_something_else_uses_stays() -> None:
    def write(t: Any, x: Any, w: Any) -> Any:
        return t.add(t.matmul(x, w), t.reduce_sum(w, axes=(0,), keepdim=False))

    found = lifted(write, X, KERNEL)
    assert not found.graph.modules
    assert "its kernel 'dense.weight' is also used by reduce_sum" in "\n".join(found.refusals)


def test_one_kernel_called_twice_is_one_layer() -> None:
    def write(t: Any, x: Any, y: Any, w: Any, b: Any) -> Any:
        return t.mul(t.add(t.matmul(x, w), b), t.add(t.matmul(y, w), b))

    found = lifted(write, {**X, "y": ("float32", ("n", 4))}, WHOLE)
    assert ops(found) == ["module", "module", "mul"]
    assert list(found.graph.modules) == ["dense"]
