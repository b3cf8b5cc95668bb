"""nn.RMSNorm: divided by the root of the mean square, in the orders in which it is written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.porting.rewrites.by_hand import layer, lifted

X = {"x": ("float32", ("n", 5, 4))}
SCALE = {"norm.scale": (4,)}


def inverse(t: Any, x: Any, axes: tuple[int, ...] = (-1,)) -> Any:
    return t.rsqrt(t.add(t.reduce_mean(t.square(x), axes=axes, keepdim=True), 1e-6))


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x, w: t.mul(t.mul(x, inverse(t, x)), w),
        lambda t, x, w: t.mul(w, t.mul(inverse(t, x), x)),
        lambda t, x, w: t.mul(x, t.mul(inverse(t, x), w)),
        lambda t, x, w: t.mul(t.mul(x, w), inverse(t, x)),
    ],
)
def test_every_order(write: Any) -> None:
    kind, args = layer(lifted(write, X, SCALE))
    assert kind == "RMSNorm"
    assert args["normalized_shape"] == (4,)
    assert args["eps"] == pytest.approx(1e-6)


def test_gemmas_scale_begins_at_one() -> None:
    found = lifted(lambda t, x, w: t.mul(t.mul(x, inverse(t, x)), t.add(1.0, w)), X, SCALE)
    assert layer(found)[0] == "OffsetRMSNorm"


def test_without_a_scale() -> None:
    kind, args = layer(lifted(lambda t, x: t.mul(x, inverse(t, x)), X))
    assert (kind, args["elementwise_affine"]) == ("RMSNorm", False)


def test_an_axis_in_the_middle_is_none() -> None:
    found = lifted(lambda t, x: t.mul(x, inverse(t, x, (1,))), X)
    assert not found.graph.modules
    assert "it normalizes over axes [1]" in "\n".join(found.refusals)
