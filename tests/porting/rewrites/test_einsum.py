"""Projections by einsum are nn.Linear, whatever the axes of their kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.porting.rewrites.by_hand import layer, lifted, ops
from tests.porting.rewrites.conftest import Exported
from tests.porting.rewrites.models import EINSUMS
from torch_towers.layers.linear import EinsumDense

Get = Callable[[str], Exported]
DENSE = {
    "head_bias": ("abc,cde->abde", (3,)),
    "per_place": ("abc,bcd->abd", (4,)),
    "per_place_and_bias": ("abc,bcd->abd", (7, 4)),
    "per_channel": ("abc,cd->adc", None),
    "place_bias": ("abc,cde->abde", (7, 1, 3)),
    "open_places": ("...ab,abc->...ac", (6,)),
}
"""Those that are no nn.Linear: their equations, and the shapes of their biases."""
PRODUCERS = ("keras", "tf_keras")


def batch(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "s": rng.normal(0, 2, (rows, 7, 16)).astype(np.float32),
        "free": rng.normal(0, 2, (rows, 5, 16)).astype(np.float32),
    }


@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_kernel_is_a_matrix_of_the_layer_that_its_author_named(exported: Get, producer: str) -> None:
    program = exported(f"{producer} einsums").program
    names = {name for name, _ in program.named_parameters()}
    linear = (EINSUMS.keys() - DENSE.keys()) | {"free_heads", "joined", "twice", "at_both"}
    for name in linear:
        assert type(program.get_submodule(name)) is nn.Linear, name
        assert f"{name}.weight" in names
    assert program.get_submodule("heads").weight.shape == (6, 16)
    assert program.get_submodule("joined").weight.shape == (5, 6)
    assert program.get_submodule("over_places").weight.shape == (3, 7)
    for name in ("heads", "flat", "open", "free_heads", "joined", "twice", "at_both"):
        assert f"{name}.bias" in names and program.get_submodule(name).bias.ndim == 1


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers_and_gradients(exported: Get, producer: str) -> None:
    model = exported(f"{producer} einsums")
    for rows in (0, 1, 3):
        model.check(batch(rows))
    model.check_gradients(batch(3))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_what_is_no_linear_is_an_einsum_dense(exported: Get, producer: str) -> None:
    model = exported(f"{producer} einsums")
    assert not [node.name for node in model.lifted.graph.nodes if node.op == "parameter"]
    for name, (equation, bias) in DENSE.items():
        found = model.program.get_submodule(name)
        assert isinstance(found, EinsumDense) and found.equation == equation, name
        assert (None if found.bias is None else tuple(found.bias.shape)) == bias, name


@pytest.mark.parametrize("producer", PRODUCERS)
def test_export_with_free_sizes(exported: Get, producer: str) -> None:
    program = exported(f"{producer} einsums").program
    given = {name: torch.from_numpy(value) for name, value in batch(3).items()}
    free = {name: {0: torch.export.Dim.AUTO} for name in given}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    other = {name: torch.from_numpy(value) for name, value in batch(5).items()}
    torch.testing.assert_close(whole(**other), program(**other))


def test_a_kernel_that_is_read_in_two_ways_stays(exported: Get) -> None:
    almost = exported("near_misses")
    assert "its kernel 'mixed' is also used by einsum" in almost.refusal("Linear")
    assert almost.kind("mixed_again") == "einsum"


def open_and_fixed(t: Any, x: Any, y: Any, kernel: Any, *bias: Any) -> Any:
    """An einsum over an open length and a matmul over a fixed one, as Keras 3 writes two calls of a layer."""
    products = (
        t.einsum(x, kernel, equation="abx,xyz->abyz"),
        t.reshape(t.matmul(y, t.reshape(kernel, 4, 6)), -1, 2, 3),
    )
    first, second = (t.add(product, *bias) if bias else product for product in products)
    return t.add(first, t.unsqueeze(second, axis=1))


@pytest.mark.parametrize(("bias", "count"), [(None, 0), ((2, 3), 0), ((3,), 2)], ids=str)
def test_a_kernel_of_an_einsum_and_of_a_matmul_is_one_linear(bias: tuple[int, ...] | None, count: int) -> None:
    """A bias of all heads is added beside it: `x` and `y` have not the same axes, as one EinsumDense would need."""
    weights = {"dense.kernel": (4, 2, 3), "dense.bias": bias} if bias else {"dense.kernel": (4, 2, 3)}
    found = lifted(open_and_fixed, {**X, "y": ("float32", ("n", 4))}, weights)
    assert layer(found) == ("Linear", {"in_features": 4, "out_features": 6, "bias": bias == (2, 3)})
    assert ops(found).count("module") == 2 and ops(found).count("add") == 1 + count


def test_it_is_one_einsum_dense_if_the_values_have_the_same_axes() -> None:
    def write(t: Any, x: Any, kernel: Any, bias: Any) -> Any:
        flat = t.matmul(t.relu(x), t.reshape(kernel, 4, 6))
        products = t.einsum(x, kernel, equation="pqx,xyz->pqyz"), t.reshape(flat, -1, 5, 2, 3)
        return t.mul(*(t.add(product, bias) for product in products))

    found = lifted(write, X, {"dense.kernel": (4, 2, 3), "dense.bias": (3,)})
    assert layer(found)[0] == "EinsumDense" and ops(found).count("module") == 2


def test_the_summed_axes_of_a_kernel_that_is_read_both_ways() -> None:
    def write(t: Any, x: Any, y: Any, kernel: Any) -> Any:
        first = t.einsum(t.reshape(x, -1, 5, 2, 2), kernel, equation="abxy,xyz->abz")
        return t.add(first, t.unsqueeze(t.matmul(y, t.reshape(kernel, 4, 3)), axis=1))

    found = lifted(write, {**X, "y": ("float32", ("n", 4))}, {"dense.kernel": (2, 2, 3)})
    assert layer(found) == ("Linear", {"in_features": 4, "out_features": 3, "bias": False})
    assert ops(found).count("module") == 2


def test_a_kernel_that_two_products_lay_out_in_two_ways_stays() -> None:
    def write(t: Any, x: Any, kernel: Any) -> Any:
        turned = t.einsum(x, kernel, equation="abc,cde->abed")
        return t.add(turned, t.reshape(t.matmul(x, t.reshape(kernel, 4, 9)), -1, 5, 3, 3))

    found = lifted(write, X, {"dense.kernel": (4, 3, 3)})
    assert not found.graph.modules and "is also used by einsum" in "\n".join(found.refusals)


def test_what_is_no_product_with_one_weight_stays(exported: Get) -> None:
    said = exported("near_misses").refusal("EinsumDense")
    assert "it takes a diagonal" in said and "it is not a product of values with one weight" in said


X = {"x": ("float32", ("n", 5, 4))}


def biased(t: Any, x: Any, kernel: Any, bias: Any) -> Any:
    return t.add(t.einsum(x, kernel, equation="abc,cde->abde"), bias)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2, 3), (5, 1, 3), (1,)], ids=str)
def test_a_bias_of_the_same_author_may_have_any_axes(shape: tuple[int, ...]) -> None:
    found = lifted(biased, X, {"dense.kernel": (4, 2, 3), "dense.bias": shape})
    assert layer(found) == ("EinsumDense", {"equation": "abc,cde->abde", "shape": (4, 2, 3), "bias_shape": shape})
    assert set(found.store) == {"dense.weight", "dense.bias"}


def test_what_is_added_along_other_axes_may_be_another_layer() -> None:
    found = lifted(biased, X, {"dense.kernel": (4, 2, 3), "places.table": (5, 2, 3)})
    assert layer(found)[0] == "Linear"
    assert "with axes that its kernel does not have" in "\n".join(found.refusals)


def test_what_widens_the_product_is_no_bias() -> None:
    def write(t: Any, x: Any, kernel: Any, bias: Any) -> Any:
        return t.add(t.einsum(x, kernel, equation="abc,bcd->abd"), bias)

    found = lifted(write, X, {"dense.kernel": (5, 4, 1), "dense.bias": (6,)})
    assert layer(found)[0] == "EinsumDense" and "add" in ops(found)
    assert "it is not a bias of the product" in "\n".join(found.refusals)


def test_a_kernel_of_each_place_with_two_biases_is_one_layer_without() -> None:
    def write(t: Any, x: Any, kernel: Any, one: Any, other: Any) -> Any:
        products = [t.einsum(value, kernel, equation="abc,bcd->abd") for value in (x, t.relu(x))]
        return t.add(t.add(products[0], one), t.tanh(t.add(products[1], other)))

    found = lifted(write, X, {"dense.kernel": (5, 4, 2), "dense.bias": (2,), "dense.other": (2,)})
    assert layer(found) == ("EinsumDense", {"equation": "abc,bcd->abd", "shape": (5, 4, 2), "bias_shape": None})


def test_merged_axes_of_the_values_are_split_for_the_kernel() -> None:
    def write(t: Any, x: Any, kernel: Any, bias: Any) -> Any:
        product = t.matmul(x, t.reshape(kernel, 4, 15))
        return t.add(t.reshape(product, -1, 5, 3, 5), bias)

    found = lifted(write, X, {"dense.kernel": (2, 2, 3, 5), "dense.bias": (5,)})
    assert layer(found)[1]["shape"] == (2, 2, 3, 5) and ops(found) == ["split_last", "module"]
