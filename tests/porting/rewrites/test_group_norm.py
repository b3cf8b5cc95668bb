"""GroupNormalization of Keras, and those written by hand, become GroupNorm with TensorFlow's numbers and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.porting.rewrites.by_hand import layer, lifted, ops
from tests.porting.rewrites.conftest import Exported
from tests.witness import to_runtime

Get = Callable[[str], Exported]
PRODUCERS = ("keras", "tf_keras")
GROUPS = {
    "free": 3, "behind": 2, "sequence": 2, "vector": 4, "volume": 2, "channels_first": 3, "instance": 6, "single": 1,
    "no_shift": 2, "no_scale": 2, "bare": 2, "twice": 4,
}  # fmt: skip


def batch(rows: int, height: int = 4, width: int = 3, far: float = 0.0) -> dict[str, np.ndarray]:
    """Values around `far`."""
    rng = np.random.default_rng(rows)
    shapes = {
        "x": (height, width, 6),
        "f": (4, 5, 6),
        "s": (height, 8),
        "v": (8,),
        "first": (6, 4, 3),
        "clip": (3, 4, 2, 4),
    }
    return {name: (far + rng.normal(0, 2, (rows, *shape))).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_each_is_one_layer_under_its_name(exported: Get, producer: str) -> None:
    model = exported(f"{producer} group_norms")
    norms = {name: spec for name, spec in model.lifted.graph.modules.items() if spec.type == "GroupNorm"}
    assert {name: spec.args["num_groups"] for name, spec in norms.items()} == GROUPS
    assert not [node.name for node in model.lifted.graph.nodes if node.op == "parameter"]
    state = {name: tuple(value.shape) for name, value in model.program.state_dict().items()}
    assert state["channels_first.weight"] == state["free.bias"] == (6,)
    assert {"no_shift.weight", "no_scale.bias"} <= state.keys() and not {"no_shift.bias", "bare.weight"} & state.keys()
    shown = str(model.program)
    assert "(free): GroupNorm(3, 6, eps=0.001)" in shown
    assert "(channels_first): GroupNorm(3, 6, eps=0.001, channels_last=False)" in shown


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers_and_gradients(exported: Get, producer: str) -> None:
    model = exported(f"{producer} group_norms")
    for given in (batch(0), batch(1), batch(3), batch(2, 7, 2), batch(2, 2, 2)):
        model.check(given)
    model.check_gradients(batch(4))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_values_far_from_zero(exported: Get, producer: str) -> None:
    """Squares of 100 leave float32 two digits of a variance of 4: mean squares less squared means would miss by 0.1."""
    model = exported(f"{producer} group_norms")
    given = batch(3, far=100.0)
    expected = model.tensorflow(given)
    with torch.no_grad():
        found = model.program(**{name: to_runtime(value) for name, value in given.items()})
    for name, theirs in expected.items():
        np.testing.assert_allclose(found[name].numpy(), theirs, rtol=0, atol=1e-3, err_msg=name)


def test_halves_are_computed_as_float32(exported: Get) -> None:
    model = exported("keras half_norms")
    assert model.kind("half") == "GroupNorm"
    assert not [node.op for node in model.lifted.graph.nodes if node.op != "module"]
    given = np.random.default_rng(0).normal(300, 90, (3, 5, 4, 6)).astype(np.float16)
    model.check({"x": given}, ulp=2)


def test_free_sizes_are_exported_and_compiled(exported: Get) -> None:
    program = exported("keras group_norms").program
    given = {key: to_runtime(value) for key, value in batch(3).items()}
    auto = torch.export.Dim.AUTO
    free = {name: {0: auto} for name in given} | {"x": {0: auto, 1: auto, 2: auto}, "s": {0: auto, 1: auto}}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    other = {key: to_runtime(value) for key, value in batch(5, 9, 6).items()}
    torch.testing.assert_close(whole(**other), program(**other))
    torch._dynamo.reset()
    compiled = torch.compile(program, fullgraph=True, backend="eager", dynamic=True)
    torch.testing.assert_close(compiled(**other), program(**other))


X = {"x": ("float32", ("n", 4, 5, 6))}
FIRST = {"x": ("float32", ("n", 6, 4, 5))}


def moments(t: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    mean = t.reduce_mean(x, axes=axes, keepdim=True)
    return mean, t.reduce_mean(t.squared_difference(x, mean), axes=axes, keepdim=True)


def inverse(t: Any, variance: Any) -> Any:
    return t.rsqrt(t.add(variance, 1e-5))


def paper(t: Any, x: Any, gamma: Any, beta: Any) -> Any:
    """The function in the paper of group normalization: scale and shift behind, in the shape that broadcasts."""
    apart = t.reshape(x, -1, 3, 2, 4, 5)
    mean, variance = moments(t, apart, (2, 3, 4))
    x = t.div(t.sub(apart, mean), t.sqrt(t.add(variance, 1e-5)))
    return t.add(t.mul(t.reshape(x, -1, 6, 4, 5), gamma), beta)


def contrib(t: Any, x: Any, gamma: Any, beta: Any) -> Any:
    """tf.contrib.layers.group_norm: `x * (gain * gamma) + (-mean * gain * gamma + beta)`"""
    apart = t.reshape(x, -1, 4, 5, 3, 2)
    mean, variance = moments(t, apart, (1, 2, 4))
    gain, wide = inverse(t, variance), t.reshape(gamma, 1, 1, 1, 3, 2)
    offset = t.add(t.mul(t.mul(t.neg(mean), gain), wide), t.reshape(beta, 1, 1, 1, 3, 2))
    return t.reshape(t.add(t.mul(apart, t.mul(gain, wide)), offset), -1, 4, 5, 6)


def test_the_papers() -> None:
    weights = {"norm.gamma": (1, 6, 1, 1), "norm.beta": (1, 6, 1, 1)}
    found = lifted(paper, FIRST, weights)
    kind, args = layer(found)
    assert (kind, args["num_groups"], args["num_channels"], args["channels_last"]) == ("GroupNorm", 3, 6, False)
    assert ops(found) == ["module"]
    assert {tuple(value.shape) for value in found.store.values()} == {(6,)}


def test_contribs() -> None:
    found = lifted(contrib, X, {"norm.gamma": (6,), "norm.beta": (6,)})
    assert layer(found)[0] == "GroupNorm" and ops(found) == ["module"]


def instance(t: Any, x: Any, gamma: Any, beta: Any, axes: tuple[int, ...] = (1, 2)) -> Any:
    """`x * inv + (beta - mean * inv)`"""
    mean, variance = moments(t, x, axes)
    inv = t.mul(inverse(t, variance), gamma)
    return t.add(t.mul(x, inv), t.sub(beta, t.mul(mean, inv)))


def test_an_instance_norm_has_as_many_groups_as_channels() -> None:
    kind, args = layer(lifted(instance, X, {"norm.gamma": (6,), "norm.beta": (6,)}))
    assert (kind, args["num_groups"], args["num_channels"]) == ("GroupNorm", 6, 6)


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1)], ids=str)
def test_an_instance_norm_with_the_channels_in_front(shape: tuple[int, ...]) -> None:
    weights = {"norm.gamma": shape, "norm.beta": shape}
    found = lifted(lambda t, x, *both: instance(t, x, *both, axes=(2, 3)), FIRST, weights)
    kind, args = layer(found)
    assert (kind, args["num_groups"], args["channels_last"]) == ("GroupNorm", 6, False) and ops(found) == ["module"]
    assert {tuple(value.shape) for value in found.store.values()} == {(6,)}


def test_a_scale_of_the_space_is_no_scale_of_channels() -> None:
    weights = {"norm.gamma": (4, 5), "norm.beta": (4, 5)}
    found = lifted(lambda t, x, *both: instance(t, x, *both, axes=(2, 3)), FIRST, weights)
    assert layer(found)[0] == "LayerNorm"


@pytest.mark.parametrize("shifts", [True, False])
def test_a_gain_that_is_scaled_before_it_multiplies(shifts: bool) -> None:
    def write(t: Any, x: Any, gamma: Any, *beta: Any) -> Any:
        """`(x - mean) * (inv * gamma)`"""
        mean, variance = moments(t, x, (3,))
        scaled = t.mul(t.sub(x, mean), t.mul(inverse(t, variance), gamma))
        return t.add(scaled, beta[0]) if beta else scaled

    found = lifted(write, X, {"norm.gamma": (6,), "norm.beta": (6,)} if shifts else {"norm.gamma": (6,)})
    assert layer(found)[0] == "LayerNorm" and ops(found) == ["module"]


def assert_stays(write: Callable[..., Any], weights: dict[str, tuple[int, ...]], reason: str) -> None:
    found = lifted(write, X, weights)
    assert "GroupNorm" not in {spec.type for spec in found.graph.modules.values()}
    assert reason in "\n".join(found.refusals)


def in_groups(t: Any, x: Any, gamma: Any, beta: Any, axes: tuple[int, ...] = (1, 2, 4)) -> Any:
    return t.reshape(instance(t, t.reshape(x, -1, 4, 5, 3, 2), gamma, beta, axes), -1, 4, 5, 6)


@pytest.mark.parametrize("axes", [(4,), (1, 2), (0, 1, 2, 4)], ids=str)
def test_statistics_over_other_axes_are_none(axes: tuple[int, ...]) -> None:
    weights = {"norm.gamma": (3, 2), "norm.beta": (3, 2)}
    reason = f"it averages over axes [{axes}], and nn.GroupNorm over all but the rows and groups"
    assert_stays(lambda t, x, *both: in_groups(t, x, *both, axes=axes), weights, reason)


@pytest.mark.parametrize("axes", [(1,), (1, 3), (0, 1, 2)], ids=str)
def test_statistics_of_other_than_the_space_are_none(axes: tuple[int, ...]) -> None:
    weights = {"norm.gamma": (6,), "norm.beta": (6,)}
    reason = f"it normalizes over axes [{axes}], and nn.LayerNorm over the last ones"
    assert_stays(lambda t, x, *both: instance(t, x, *both, axes=axes), weights, reason)


def test_a_scale_per_place_is_none() -> None:
    weights = {"norm.gamma": (5, 6), "norm.beta": (6,)}
    assert_stays(instance, weights, "its gamma has shape [5, 6], and not one number per channel")


def test_groups_that_stay_apart_are_none() -> None:
    def write(t: Any, x: Any, gamma: Any, beta: Any) -> Any:
        apart = t.reshape(x, -1, 4, 5, 3, 2)
        return t.reshape(instance(t, apart, gamma, beta, (1, 2, 4)), -1, 4, 15, 2)

    weights = {"norm.gamma": (3, 2), "norm.beta": (3, 2)}
    assert_stays(write, weights, "its groups are not reshaped to channels again")


def test_channels_in_the_middle_are_none() -> None:
    def write(t: Any, x: Any, gamma: Any, beta: Any) -> Any:
        apart = t.reshape(x, -1, 4, 5, 1, 6)
        return t.reshape(instance(t, apart, gamma, beta, (1, 3, 4)), -1, 4, 5, 6)

    weights = {"norm.gamma": (5, 1, 1), "norm.beta": (5, 1, 1)}
    assert_stays(write, weights, "its channels are neither the second axis nor the last one")


def test_a_column_of_weights_is_none_where_there_are_as_many_places_as_channels() -> None:
    weights = {"norm.gamma": (6, 1), "norm.beta": (6,)}
    found = lifted(lambda t, x, *both: instance(t, x, *both, axes=(1,)), {"x": ("float32", ("n", 6, 6))}, weights)
    assert not found.graph.modules and "its gamma has shape [6, 1]" in "\n".join(found.refusals)
