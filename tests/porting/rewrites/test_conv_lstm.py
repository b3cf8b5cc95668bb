"""ConvLSTM layers of Keras 3 and tf_keras become layers and match TensorFlow's numbers and gradients; near misses stay ops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.porting.rewrites.conftest import Exported
from torch_towers.layers.conv_lstm import ConvLSTM

PRODUCERS = ("keras", "tf_keras")
LIFTED = {
    "frames": (3, 3), "last": (3, 3), "strided": (3, 2), "line": (3,), "started": (2,),
    "volume": (2, 2, 2),
}  # fmt: skip

Get = Callable[[str], Exported]


def images(rows: int, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"s": (steps, 8, 3), "x": (steps, 6, 7, 3), "v": (2, 4, 5, 3, 2)}
    floats = {name: rng.normal(0, 1, (rows, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return {**floats, "on": rng.integers(0, 2, (rows, steps)) == 1}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_layers(exported: Get, producer: str) -> None:
    model = exported(f"{producer} image_sequences")
    layers = {name: layer for name, layer in model.program.named_modules() if isinstance(layer, ConvLSTM)}
    assert {name: layer.kernel_size for name, layer in layers.items()} == LIFTED
    assert layers["last"].bias_ih is None
    assert (layers["strided"].stride, layers["strided"].margins) == ((2, 2), "SAME")
    assert layers["strided"].no_nan is False  # the port here is of a TensorFlow without oneDNN
    assert (layers["line"].go_backwards, layers["line"].return_state) == (True, True)
    for rows, steps in ((3, 4), (1, 1), (5, 2)):
        model.check(images(rows, steps))  # sums of up to 54 products in another order, over 4 steps of tanh


@pytest.mark.parametrize("producer", PRODUCERS)
def test_weights_have_the_layouts_of_torch(exported: Get, producer: str) -> None:
    weights = {
        name: tuple(value.shape) for name, value in exported(f"{producer} image_sequences").program.state_dict().items()
    }
    assert weights["strided.weight_ih"] == (16, 3, 3, 2)
    assert weights["strided.weight_hh"] == (16, 4, 3, 2)
    assert weights["strided.bias_ih"] == (16,)
    assert weights["volume.weight_ih"] == (12, 2, 2, 2, 2)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_near_misses_stay(exported: Get, producer: str) -> None:
    """A mask that keeps whole images, and a dilation, which each step writes as images apart."""
    refusals = exported(f"{producer} image_sequences").refusal("Recurrent").splitlines()
    assert len(refusals) == 2
    for name in ("masked", "dilated"):
        assert any(f"'{name}" in line for line in refusals)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_gradients_are_those_of_the_ops(exported: Get, producer: str) -> None:
    exported(f"{producer} image_sequences").check_gradients_of_ops(images(3, 3))


def test_a_mask_keeps_the_state(exported: Get) -> None:
    """A row whose mask leaves steps out is the row without them: as those of other recurrent layers, which are TensorFlow's."""
    layer = exported("keras image_sequences").program.get_submodule("frames")
    x = torch.from_numpy(images(2, 5)["x"])
    on = torch.tensor([[True, False, True, True, False], [False, False, True, False, True]])
    with torch.no_grad():
        masked = layer(x, on)
        for row in range(2):
            alone = layer(x[row : row + 1, on[row]])
            torch.testing.assert_close(masked[row : row + 1, on[row]], alone, rtol=1e-5, atol=1e-6)
            first = int(on[row].int().argmax())
            assert not masked[row, :first].any()
            torch.testing.assert_close(masked[row, -1], alone[0, -1], rtol=1e-5, atol=1e-6)


def test_compiles_and_exports_with_free_rows_and_lengths(exported: Get) -> None:
    layer = exported("keras image_sequences").program.get_submodule("frames")
    x = torch.from_numpy(images(3, 4)["x"])
    free = {"x": {0: torch.export.Dim("rows"), 1: torch.export.Dim("steps")}}
    program = torch.export.export(layer, (x,), dynamic_shapes=free).module()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for rows, steps in ((3, 4), (2, 6)):
            x = torch.from_numpy(images(rows, steps, seed=rows)["x"])
            for found in (program(x), compiled(x)):
                torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-6)
