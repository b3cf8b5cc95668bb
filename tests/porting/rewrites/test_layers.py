"""Each rewrite fires on what Keras 3 and tf_keras write, and changes no number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.porting.rewrites.conftest import Exported
from tests.witness import run
from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import TensorSpec
from torch_towers.graph.narrow import narrowed
from torch_towers.program.program import Program
from torch_towers.program.rows import memory_of

PRODUCERS = ("keras", "tf_keras")

TENSORS = {
    "prelu": "PReLU", "elu_layer": "scaled_elu", "gelu_tanh": "gelu", "act_gelu": "gelu", "act_swish": "silu",
    "act_mish": "mish", "nobias": "Linear", "rank3_nobias": "Linear", "embed": "Embedding",
    "ln": "LayerNorm", "ln_scale": "LayerNorm", "ln_2d": "LayerNorm", "ln_shift": "ShiftedLayerNorm",
    "ln_shift_3": "ShiftedLayerNorm", "bn": "BatchNorm", "bn_shift": "BatchNorm",
    "bn_scale": "BatchNorm", "unit": "L2Normalize", "l2": "L2Normalize", "l2_axis": "L2Normalize",
    "norm": "Normalization", "norm_fixed": "Normalization", "discretization": "Discretization",
    "category_multi_hot": "CategoryEncoding", "category_count": "CategoryEncoding",
}  # fmt: skip
HARD_SIGMOID = {"keras": "hard_sigmoid", "tf_keras": "clipped_line"}

Get = Callable[[str], Exported]


def numbers(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, (rows, 8)).astype(np.float32)
    x[:1] = 0
    x[1:2] = [-30, 30, -1e-7, 1e-7, 0.5, -0.5, 3, -3]
    return {
        "x": x,
        "s": rng.normal(0, 2, (rows, 5, 8)).astype(np.float32),
        "ids": rng.integers(0, 9, (rows, 4)).astype(np.int32),
    }


@pytest.mark.parametrize("producer", PRODUCERS)
def test_tensors(exported: Get, producer: str) -> None:
    model = exported(f"{producer} tensors")
    again = {"keras": "embed_again", "tf_keras": "embed_1"}[producer]  # tf_keras names outputs after their layers
    expected = {**TENSORS, "act_hard_sigmoid": HARD_SIGMOID[producer], again: "Embedding"}
    assert {name: model.kind(name) for name in expected} == expected
    for rows in (1, 2, 7):
        model.check(numbers(rows))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_weights_are_named_after_the_layers(exported: Get, producer: str) -> None:
    program = exported(f"{producer} tensors").program
    state = program.state_dict()
    assert state["dense.weight"].shape == (8, 8)
    assert state["rank3.weight"].shape == (6, 8), "a kernel is [out, in] in PyTorch"
    assert {
        "embed.weight",
        "ln.weight",
        "ln.bias",
        "ln_shift.bias",
        "bn.running_mean",
        "bn.running_var",
        "prelu.weight",
    } <= set(state)
    parameters = dict(program.named_parameters())
    assert {"dense.weight", "dense.bias", "embed.weight", "bn.weight", "prelu.weight"} <= set(parameters)
    assert not {"bn.running_mean", "norm.mean", "norm.std"} & set(parameters), "statistics are buffers"


STRINGS = np.array([b"a", b"b", b"c", b"d e", "é".encode(), b"", b"zzz", b"Q" * 80, b"\xff\x00"], object)
INTEGERS = np.array([11, 12, 15, -4, 70000, 0, 7, -1, 2**62], np.int64)


def categories(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "t": rng.choice(STRINGS, (rows, 1)), "t3": rng.choice(STRINGS, (rows, 3)), "known": rng.choice(STRINGS[:5], (rows, 3)),
        "n": rng.choice(INTEGERS, (rows, 1)), "n3": rng.choice(INTEGERS, (rows, 3)),
        "known_n": rng.choice(INTEGERS[:5], (rows, 3)),
    }  # fmt: skip


PIECES = [
    b"the",
    b"cat",
    b"The Cat",
    b"sat!!",
    b"on,",
    b"",
    b"  mat  ",
    "日本 é".encode(),
    b"x" * 70,
    b"\t\n",
    "\u3000".encode(),
]


def texts(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lines = [b" ".join(rng.choice(np.array(PIECES, object), rng.integers(0, 6))) for _ in range(rows)]
    return {"t": np.array(lines, object).reshape(rows, 1)}


def assert_same(model: Exported, batch: dict[str, np.ndarray]) -> None:
    """Lifted and op by op are equal: ids and strings to the bit, floats within what another order of a sum of tens of them changes."""
    plain, lifted = run(model.plain, batch), run(model.program, batch)
    for name, expected in plain.items():
        if isinstance(expected, torch.Tensor):
            assert lifted[name].dtype == expected.dtype, name
            bound = 2**-18 if expected.is_floating_point() else 0
            torch.testing.assert_close(lifted[name], expected, rtol=bound, atol=bound, equal_nan=True, msg=name)
        else:
            assert np.array_equal(lifted[name], expected), name


def test_no_rows(exported: Get) -> None:
    for name, batch in (("keras texts", texts(0)), ("keras lookups", categories(0)), ("keras tensors", numbers(0))):
        model = exported(name)
        assert_shapes(run(model.program, batch), run(model.plain, batch))


def assert_shapes(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        assert (tuple(found[name].shape), found[name].dtype) == (tuple(value.shape), value.dtype), name


@pytest.mark.parametrize("name", ["tensors", "attentions", "convolutions", "sequences", "einsums"])
@pytest.mark.parametrize("keras", PRODUCERS)
def test_rows_do_not_meet(exported: Get, keras: str, name: str) -> None:
    """Every output of a model whose rows are said not to meet: each of seven rows alone has the numbers of all. In checks rows
    always may, so they are left out."""
    program = exported(f"{keras} {name}").program
    graph = replace(program.graph, nodes=tuple(node for node in program.graph.nodes if not has_effect(node)))
    store = {key: value.detach().clone() for key, value in program.tensors().items()} | dict(program._host)
    draw = torch.Generator().manual_seed(0)
    proven: list[str] = []
    for output in program.graph.outputs:
        given = {spec.name: _drawn(spec, draw) for spec in program.graph.inputs}
        single = Program(narrowed(graph, {output}), store).double()
        given = {spec.name: given[spec.name] for spec in single.graph.inputs}
        with torch.no_grad():
            if memory_of(single, given) is None:
                continue
            whole = single(**given)[output]
            alone = [single(**{key: value[i : i + 1] for key, value in given.items()})[output] for i in range(7)]
        torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-9, atol=1e-9)
        proven.append(output)
    assert len(proven) > len(program.graph.outputs) / 2, proven


def _drawn(spec: TensorSpec, draw: torch.Generator) -> Tensor:
    """Seven rows of an input."""
    sizes = [7, *(size if isinstance(size, int) else 6 for size in (spec.shape or ())[1:])]
    if spec.dtype.startswith("float"):
        return torch.randn(sizes, generator=draw).double()
    if spec.dtype == "bool":
        return torch.rand(sizes, generator=draw) < 0.7
    return torch.randint(0, 4, sizes, generator=draw).to(getattr(torch, spec.dtype))
