"""Convolutions and their normalizations become layers with their original names, and match TensorFlow's numbers and gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from porting.names import clean, weight_name
from tests.porting.rewrites.conftest import Exported
from tests.porting.rewrites.convolutions import EXPECTED, SHAPES
from tests.witness import tf, to_runtime
from torch_towers.layers.conv import Conv2d
from torch_towers.ops.conv import torch_kernel

PRODUCERS = ("keras", "tf_keras")
Get = Callable[[str], Exported]


def images(rows: int, free: tuple[int, ...] = (7, 10)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    sizes = {name: [free[0] if size is None else size for size in shape] for name, shape in SHAPES.items()}
    sizes["free"][1] = free[1]
    return {name: rng.normal(0, 2, (rows, *shape)).astype(np.float32) for name, shape in sizes.items()}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_layer(exported: Get, producer: str) -> None:
    model = exported(f"{producer} convolutions")
    assert {name: model.kind(name) for name in EXPECTED} == EXPECTED
    assert not set(model.lifted.remaining) & {
        "conv",
        "conv_transpose",
        "batch_norm",
        "space_to_batch",
        "batch_to_space",
    }
    for rows in (0, 1, 3):
        model.check(images(rows))
    for free in ((8, 9), (1, 1), (6, 6), (12, 5)):
        model.check(images(2, free))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_names_and_layouts(exported: Get, producer: str) -> None:
    program = exported(f"{producer} convolutions").program
    state = {name: tuple(value.shape) for name, value in program.state_dict().items()}
    assert state["conv.weight"] == (6, 4, 3, 3) and state["conv.bias"] == (6,)
    assert state["grouped.weight"] == (6, 2, 3, 3)
    assert state["line_strided.weight"] == (6, 4, 3)
    assert state["line_dilated.weight"] == (6, 4, 3) and state["line_dilated.bias"] == (6,)
    assert state["depthwise.weight"] == (8, 1, 3, 3)
    assert state["separable.depthwise.weight"] == (4, 1, 3, 3)
    assert state["separable_line.pointwise.weight"] == (5, 4, 1) and state["separable_line.pointwise.bias"] == (5,)
    assert state["back.weight"] == (4, 3, 3, 3), "[in, out, *kernel] in PyTorch's transposed convolutions"
    layers = {name for name, layer in program.named_modules() if not list(layer.children()) and name}
    assert {name.rpartition(".")[0] for name in state} <= layers, "every weight is in a layer"
    shown = str(program)
    assert "(strided): Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), bias=False, padding='SAME')" in shown
    assert "(norm_scale): BatchNorm(4, eps=1e-05, bias=None)" in shown


@pytest.mark.parametrize("producer", PRODUCERS)
def test_gradients(exported: Get, producer: str) -> None:
    """Of every variable, against TensorFlow's own."""
    model, batch = exported(f"{producer} convolutions"), images(2)
    model.program.zero_grad()
    found = model.program(**{key: to_runtime(value) for key, value in batch.items()})
    sum((value.square().sum() for value in found.values()), torch.zeros(())).backward()
    with tf.GradientTape() as tape:
        theirs = model.signature(**{key: tf.constant(value) for key, value in batch.items()})
        loss = tf.add_n([tf.reduce_sum(tf.square(value)) for value in theirs.values()])
    variables = {weight_name(clean(v.name.partition(":")[0])): v for v in model.signature.variables}
    ours = {model.lifted.origins.get(name, name): w for name, w in model.program.named_parameters()}
    compared = 0
    for name, gradient in zip(variables, tape.gradient(loss, list(variables.values())), strict=True):
        if name.endswith(("moving_mean", "moving_variance")):
            continue
        kernel = torch.from_numpy(tf.convert_to_tensor(gradient).numpy())
        mine = ours[name].grad
        assert isinstance(mine, Tensor)
        if kernel.ndim > 1:
            kernel = torch_kernel(kernel, depthwise="depthwise" in name)
        bound = 2e-5 * float(kernel.abs().max())  # sums of up to 1400 products in another order
        torch.testing.assert_close(mine, kernel, rtol=0, atol=bound, msg=lambda said, name=name: f"{name}: {said}")
        compared += 1
    assert compared == len(ours)


def test_export_with_open_sizes(exported: Get) -> None:
    """The batch, image sizes and lengths stay free where the graph has them free: dilated, strided and transposed too."""
    program = exported("keras convolutions").program
    given = {key: to_runtime(value) for key, value in images(3).items()}
    auto = torch.export.Dim.AUTO
    free = {name: {0: auto, **{i + 1: auto for i, size in enumerate(SHAPES[name]) if size is None}} for name in given}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    for rows, sizes in ((2, (12, 5)), (5, (6, 9))):
        other = {key: to_runtime(value) for key, value in images(rows, sizes).items()}
        torch.testing.assert_close(whole(**other), program(**other))


def test_padding_of_a_checkpoint_is_checked() -> None:
    with pytest.raises(ValueError, match="padding is 'same', expected \"SAME\""):
        Conv2d(4, 4, (3, 3), padding="same")


def test_near_misses(exported: Get) -> None:
    """They stay ops, or are the convolution without what is added; each says why."""
    almost = exported("near_convolutions")
    almost.check({"x": images(2)["x"]})
    said = almost.refusal("Conv")
    assert "its kernel 'tied' is also used by reduce_sum" in said
    assert "its kernel 'twice' is also used by" in said and "with other strides or padding" in said
    assert "what is added has shape [1], expected [6]: it is not a bias" in said
    assert "what is added has shape [8, 1], expected [8]: it is not a bias" in said
    assert "has strides or dilations of its own" in almost.refusal("dilation")
    assert {name: almost.kind(name) for name in ("tied", "twice", "number", "row", "holes", "norm")} == {
        "tied": "add", "twice": "conv", "number": "add", "row": "add", "holes": "batch_to_space", "norm": "batch_norm",
    }  # fmt: skip
    kinds = {spec.type for spec in almost.lifted.graph.modules.values()}
    assert kinds == {"Conv2d"}
