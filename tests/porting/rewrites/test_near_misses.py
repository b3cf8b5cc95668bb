"""Near misses of layers stay ops, with a reason and the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.porting.rewrites.conftest import Exported
from tests.witness import tf, to_runtime

Get = Callable[[str], Exported]


def batch(rows: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    lines = [b"x y x z", b"", b"y", b"X x Y"] * rows
    return {
        "x": rng.normal(0, 2, (rows, 8)).astype(np.float32),
        "s": rng.normal(0, 2, (rows, 5, 8)).astype(np.float32),
        "ids": rng.integers(0, 8, (rows, 3)),
        "t": np.array(lines[:rows], object),
    }


@pytest.fixture(scope="module")
def almost(exported: Get) -> Exported:
    return exported("near_misses")


def test_numbers(almost: Exported) -> None:
    almost.check(batch(1))
    almost.check(batch(4))


def test_refusals(almost: Exported) -> None:
    linear = almost.refusal("Linear")
    assert "without the same bias" in linear
    assert "its kernel 'tied' is also used by matrix_transpose" in linear
    assert "is an output of the graph, so its ops stay" in linear
    assert "it is not a bias" in linear
    assert "and nn.LayerNorm over the last ones" in almost.refusal("LayerNorm")
    assert "are not consecutive, so it stays a table" in almost.refusal("Lookup")
    assert "it normalizes over axes [1], and nn.RMSNorm over the last ones" in almost.refusal("RMSNorm")
    assert "it does not negate the second half and put it first" in almost.refusal("rotate")
    assert "it is not one row per position of [n, length, dim]" in almost.refusal("PositionEmbedding")
    text = almost.refusal("TextVectorization")
    assert "not from a split" in text
    assert "its rows are not those of its texts" in text


def test_what_stays(almost: Exported) -> None:
    stays = {
        "tied": "matmul", "other_variance": "add", "other_length": "mul", "not_gelu": "mul", "not_swish": "mul",
        "logits": "matmul", "cut_rows": "ragged_to_tensor", "other_rows": "ragged_to_tensor", "gaps": "LookupTable",
        "rms_middle": "mul", "rms_other": "mul", "not_rotated": "add", "no_positions": "add",
    }  # fmt: skip
    assert {name: almost.kind(name) for name in stays} == stays
    assert almost.kind("norm") == "LayerNorm"


def test_a_kernel_with_two_biases_is_one_linear_without(almost: Exported) -> None:
    graph = almost.lifted.graph
    nodes = {node.name: node for node in graph.nodes}
    sums = [nodes[graph.outputs[name]] for name in ("bias_a", "bias_b")]
    calls = [nodes[ref] for node in sums for ref in node.inputs if nodes[ref].op == "module"]
    assert [node.op for node in sums] == ["add", "add"]
    assert len(calls) == 2
    (name,) = {str(node.attrs["module"]) for node in calls}
    assert (graph.modules[name].type, graph.modules[name].args["bias"]) == ("Linear", False)


def test_a_kernel_with_one_bias_is_one_linear_called_twice(almost: Exported) -> None:
    graph = almost.lifted.graph
    a, b = (next(n for n in graph.nodes if n.name == graph.outputs[name]) for name in ("shared_a", "shared_b"))
    assert a.attrs["module"] == b.attrs["module"] and graph.modules[str(a.attrs["module"])].type == "Linear"


def test_a_tied_table_is_one_weight_and_its_gradients_are_tensorflows(almost: Exported) -> None:
    assert almost.kind("table") == "Embedding"
    data = batch(3)
    name = next(
        name for name, weight in almost.program.named_parameters() if tuple(weight.shape) == (8, 8) and "table" in name
    )
    almost.program.zero_grad()
    found = almost.program(**{key: to_runtime(value) for key, value in data.items()})
    (found["table"].sum() + (found["logits"] ** 2).sum()).backward()
    variable = almost.signature.model.table
    with tf.GradientTape() as tape:
        theirs = almost.signature(**{key: tf.constant(value) for key, value in data.items()})
        loss = tf.reduce_sum(theirs["table"]) + tf.reduce_sum(theirs["logits"] ** 2)
    expected = tf.convert_to_tensor(tape.gradient(loss, variable)).numpy()
    gradient = dict(almost.program.named_parameters())[name].grad
    assert gradient is not None
    torch.testing.assert_close(gradient, torch.from_numpy(expected), rtol=1e-5, atol=1e-4)


def test_layers_of_one_scope_keep_the_names_of_their_weights(almost: Exported) -> None:
    names = {name for name, _ in almost.program.named_parameters()}
    assert {name for name in names if name.startswith("block")} == {"block_0.wq.weight", "block_0.wo.weight"}
