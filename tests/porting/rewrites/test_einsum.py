"""Projections by einsum are nn.Linear, whatever the axes of their kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from tests.porting.rewrites.conftest import Exported
from tests.porting.rewrites.models import EINSUMS

Get = Callable[[str], Exported]
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
    lifted = (EINSUMS.keys() - {"per_place", "head_bias"}) | {"free_heads", "joined", "twice", "head_bias.linear"}
    for name in lifted:
        assert type(program.get_submodule(name)) is nn.Linear, name
        assert f"{name}.weight" in names
    assert "head_bias.bias" in names, "one bias for all heads is no bias of the layer"
    assert program.get_submodule("heads").weight.shape == (6, 16)
    assert program.get_submodule("joined").weight.shape == (5, 6)
    assert program.get_submodule("over_places").weight.shape == (3, 7)
    for name in ("heads", "flat", "open", "free_heads", "joined", "twice"):
        assert f"{name}.bias" in names and program.get_submodule(name).bias.ndim == 1


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers_and_gradients(exported: Get, producer: str) -> None:
    model = exported(f"{producer} einsums")
    for rows in (0, 1, 3):
        model.check(batch(rows))
    model.check_gradients(batch(3))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_kernel_of_each_place_is_no_linear(exported: Get, producer: str) -> None:
    said = exported(f"{producer} einsums").refusal("Linear")
    assert "it multiplies along an axis that it keeps, or sums along none" in said


def test_a_kernel_that_is_read_in_two_ways_stays(exported: Get) -> None:
    almost = exported("near_misses")
    assert "its kernel 'mixed' is also used by einsum" in almost.refusal("Linear")
    assert almost.kind("mixed_again") == "einsum" and "it takes a diagonal" in almost.refusal("Linear")
    assert "it is not a product of values with one weight" in almost.refusal("Linear")
