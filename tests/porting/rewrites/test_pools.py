"""Pools and margins become layers under their author's names, with TensorFlow's numbers, NaN and infinities included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.porting.rewrites.by_hand import layer, lifted
from tests.porting.rewrites.conftest import Exported
from tests.porting.rewrites.images import POOLS, SHAPES, TF_KERAS
from tests.witness import tf, to_runtime
from torch_towers.layers.pools import MaxPool2d

PRODUCERS = ("keras", "tf_keras")
Get = Callable[[str], Exported]


def images(rows: int, free: tuple[int, int] = (7, 10)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    sizes = {name: [free[0] if size is None else size for size in shape] for name, shape in SHAPES.items()}
    sizes["x"][1] = free[1]
    return {name: rng.normal(0, 2, (rows, *shape)).astype(np.float32) for name, shape in sizes.items()}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_layer(exported: Get, producer: str) -> None:
    model = exported(f"{producer} images")
    expected = POOLS | ({} if producer == "keras" else TF_KERAS)
    assert {name: model.kind(name) for name in expected} == expected
    assert set(expected) <= set(dict(model.program.named_modules())), "under the names of the author's layers"
    for rows, free in ((0, (7, 10)), (1, (7, 10)), (3, (4, 5)), (2, (8, 6))):
        model.check(images(rows, free))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_what_is_no_number(exported: Get, producer: str) -> None:
    """A maximum ignores NaN and starts at the lowest number, an average and a global maximum do not.

    Of volumes only with oneDNN, which TensorFlow runs without in these tests: `test_conv.py` of the converters has them.
    """
    model, batch = exported(f"{producer} images"), images(3)
    for value in batch.values():
        value[0, ..., 0], value[1, 0], value[2] = np.nan, -np.inf, np.inf
        value[2, 1] = -np.inf
    expected, found = model.tensorflow(batch), model.program(**{key: to_runtime(value) for key, value in batch.items()})
    for name, theirs in expected.items():
        if name == "max_volume":
            continue
        np.testing.assert_allclose(found[name].numpy(), theirs, rtol=1e-6, atol=1e-6, err_msg=name)


def test_how_it_is_shown(exported: Get) -> None:
    shown = str(exported("keras images").program)
    assert "(max_same): MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding='SAME')" in shown
    assert "(mean_kept): GlobalAveragePooling(axes=(1, 2), keepdim=True)" in shown
    assert "(pad): ZeroPadding(((0, 1), (2, 1)))" in shown


def test_gradients(exported: Get) -> None:
    """Of the inputs: these layers have no weights."""
    model, batch = exported("keras images"), images(2)
    given = {key: torch.from_numpy(value).requires_grad_() for key, value in batch.items()}
    torch.stack([(value**2).sum() for value in model.program(**given).values()]).sum().backward()
    constants = {key: tf.constant(value) for key, value in batch.items()}
    with tf.GradientTape() as tape:
        tape.watch(constants)
        loss = tf.add_n([tf.reduce_sum(value**2) for value in model.signature(**constants).values()])
    for name, gradient in tape.gradient(loss, constants).items():
        mine = given[name].grad
        assert mine is not None
        # sums of a hundred terms in another order
        np.testing.assert_allclose(mine.numpy(), gradient.numpy(), rtol=0, atol=1e-4, err_msg=name)


def test_export_with_open_sizes(exported: Get) -> None:
    program = exported("keras images").program
    given = {key: to_runtime(value) for key, value in images(3).items()}
    auto = torch.export.Dim.AUTO
    free = {name: {0: auto, **{i + 1: auto for i, size in enumerate(SHAPES[name]) if size is None}} for name in given}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    for rows, sizes in ((2, (12, 5)), (5, (6, 9))):
        other = {key: to_runtime(value) for key, value in images(rows, sizes).items()}
        torch.testing.assert_close(whole(**other), program(**other))


IMAGE = {"x": ("float32", ("n", 6, 5, 4))}


def first(t: Any, x: Any) -> Any:
    return t.reduce_mean(x, axes=(2, 3), keepdim=False)


def test_channels_first() -> None:
    assert layer(lifted(first, IMAGE)) == ("GlobalAveragePooling", {"axes": (2, 3)})

    def padded(t: Any, x: Any) -> Any:
        return t.pad(x, 0, 0, 0, 0, 0, 1, 0, 2, 2)

    args = {"margins": ((1, 0), (2, 2)), "channels_last": False}
    assert layer(lifted(padded, IMAGE)) == ("ZeroPadding", args)


def centred(t: Any, x: Any, scale: float = 2.0) -> Any:
    return t.mul(t.sub(x, 0.5), scale)


def test_a_power_of_two_behind_a_centre_is_rescaling() -> None:
    assert layer(lifted(centred, IMAGE)) == ("Rescaling", {"scale": 2.0, "offset": -1.0})
    assert layer(lifted(lambda t, x: centred(t, x, -0.25), IMAGE)) == ("Rescaling", {"scale": -0.25, "offset": 0.125})
    found = lifted(lambda t, x: centred(t, x, 3.0), IMAGE)
    assert not found.graph.modules and "its scale 3 is no power of two" in "\n".join(found.refusals)


def of_one_axis(t: Any, x: Any) -> Any:
    return t.reduce_mean(x, axes=(1,), keepdim=False)


def of_the_batch(t: Any, x: Any) -> Any:
    return t.reduce_max(x, axes=(0, 1), keepdim=False)


def ones(t: Any, x: Any) -> Any:
    return t.pad(x, 1.0, 0, 0, 1, 1, 1, 1, 0, 0)


def channels_too(t: Any, x: Any) -> Any:
    return t.pad(x, 0, 0, 0, 1, 1, 1, 1, 0, 2)


def half_again(t: Any, x: Any) -> Any:
    return t.resize_nearest(x, 9, 5, align_corners=False, half_pixel_centers=True)


def corners(t: Any, x: Any) -> Any:
    return t.resize_bilinear(x, 12, 10, align_corners=True, half_pixel_centers=False)


def of_channels(t: Any, x: Any) -> Any:
    return t.repeat_each(x, count=2, axis=3)


def scaled_inside(t: Any, x: Any) -> Any:
    return t.mul(t.tanh(x), 0.5)


def standardized(t: Any, x: Any) -> Any:
    return t.sub(x, t.reduce_mean(x, axes=(1, 2), keepdim=True))


NEAR = {
    of_one_axis: "it pools the axes [1] of 4, which are not those of a space",
    of_the_batch: "it pools the axes [0, 1] of 4, which are not those of a space",
    ones: "",
    channels_too: "are not of the axes of a space alone",
    half_again: "its size is not a multiple of that of its input",
    corners: "",
    of_channels: "its axes are not those of a space",
    scaled_inside: "what it scales is computed, and not the pixels of an input",
    standardized: "by which its operand is normalized",
}


@pytest.mark.parametrize("write", NEAR, ids=lambda write: write.__name__)
def test_near_misses(write: Any) -> None:
    found = lifted(write, IMAGE)
    assert not found.graph.modules
    assert NEAR[write] in "\n".join(found.refusals)


def test_integers_are_not_pooled_by_a_layer() -> None:
    def write(t: Any, x: Any) -> Any:
        return t.max_pool(x, size=(2, 2), strides=(2, 2), padding="VALID", channels_last=True)

    rows = {"x": torch.arange(3 * 6 * 5 * 4, dtype=torch.int32).reshape(3, 6, 5, 4)}
    found = lifted(write, {"x": ("int32", ("n", 6, 5, 4))}, batch=rows)
    assert "it pools int32" in "\n".join(found.refusals)


def test_padding_of_a_checkpoint_is_checked() -> None:
    with pytest.raises(ValueError, match="padding is 'same', expected \"SAME\""):
        MaxPool2d((2, 2), (2, 2), padding="same")


def test_a_layer_in_a_scope_with_weights_has_a_name_of_its_own() -> None:
    def write(t: Any, x: Any, kernel: Any) -> Any:
        t.scope = "encoder/MaxPool2d"
        x = t.max_pool(x, size=(2, 2), strides=(2, 2), padding="VALID", channels_last=True)
        t.scope = "encoder/dense/MatMul"
        return t.matmul(x, kernel)

    found = lifted(write, IMAGE, {"encoder.dense.kernel": (4, 2)}).graph.modules
    assert {name: spec.type for name, spec in found.items()} == {
        "encoder.max_pool2d": "MaxPool2d",
        "encoder.dense": "Linear",
    }
