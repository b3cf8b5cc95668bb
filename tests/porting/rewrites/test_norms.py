"""LayerNorm as Keras 3 and tf.nn.moments write it, in every order; what normalizes by something else stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.porting.rewrites.by_hand import layer, lifted

X = {"x": ("float32", ("n", 5, 4))}
BOTH = {"norm.gamma": (4,), "norm.beta": (4,)}


def moments(t: Any, x: Any, axes: tuple[int, ...] = (-1,)) -> tuple[Any, Any]:
    mean = t.reduce_mean(x, axes=axes, keepdim=True)
    return mean, t.reduce_mean(t.squared_difference(x, mean), axes=axes, keepdim=True)


def inverse(t: Any, variance: Any) -> Any:
    return t.rsqrt(t.add(variance, 1e-3))


def keras(t: Any, x: Any, gamma: Any, beta: Any, axes: tuple[int, ...] = (-1,)) -> Any:
    """`x * inv + (beta - mean * inv)`"""
    mean, variance = moments(t, x, axes)
    inv = t.mul(inverse(t, variance), gamma)
    return t.add(t.mul(x, inv), t.sub(beta, t.mul(mean, inv)))


def plain(t: Any, x: Any, gamma: Any, beta: Any) -> Any:
    """`(x - mean) * inv * gamma + beta`"""
    mean, variance = moments(t, x)
    return t.add(t.mul(t.mul(t.sub(x, mean), inverse(t, variance)), gamma), beta)


@pytest.mark.parametrize("write", [keras, plain])
def test_both_spellings(write: Any) -> None:
    kind, args = layer(lifted(write, X, BOTH))
    assert kind == "LayerNorm"
    assert args["normalized_shape"] == (4,)
    assert args["eps"] == pytest.approx(1e-3)
    assert (args["elementwise_affine"], args["bias"]) == (True, True)


def shifted(t: Any, x: Any, beta: Any) -> Any:
    mean, variance = moments(t, x)
    inv = inverse(t, variance)
    return t.add(t.mul(x, inv), t.sub(beta, t.mul(mean, inv)))


def test_a_shift_without_a_scale() -> None:
    kind, args = layer(lifted(shifted, X, {"norm.beta": (4,)}))
    assert (kind, set(args), args["normalized_shape"]) == ("ShiftedLayerNorm", {"normalized_shape", "eps"}, (4,))


def test_a_shift_of_each_place_is_none() -> None:
    found = lifted(shifted, X, {"norm.beta": (5, 4)})
    assert not found.graph.modules
    assert "its beta has shape [5, 4], expected [4]" in "\n".join(found.refusals)


def test_two_axes() -> None:
    found = lifted(
        lambda t, x, gamma, beta: keras(t, x, gamma, beta, (1, 2)), X, {"norm.gamma": (5, 4), "norm.beta": (5, 4)}
    )
    assert layer(found)[1]["normalized_shape"] == (5, 4)


def test_statistics_of_the_batch_are_none() -> None:
    found = lifted(lambda t, x, gamma, beta: keras(t, x, gamma, beta, (0, 1)), X, BOTH)
    assert not found.graph.modules
    assert "and nn.LayerNorm over the last ones" in "\n".join(found.refusals)


def test_a_variance_of_something_else_stays() -> None:
    def write(t: Any, x: Any, gamma: Any, beta: Any) -> Any:
        mean, _ = moments(t, x)
        _, variance = moments(t, t.square(x))
        return t.add(t.mul(t.mul(t.sub(x, mean), inverse(t, variance)), gamma), beta)

    assert not lifted(write, X, BOTH).graph.modules
