"""Each rewrite fires on what Keras 3 and tf_keras write, and changes no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.porting.rewrites.conftest import Exported
from tests.porting.rewrites.models import LOOKUPS, TEXTS
from tests.witness import run

PRODUCERS = ("keras", "tf_keras")

TENSORS = {
    "prelu": "PReLU", "elu_layer": "scaled_elu", "gelu_tanh": "gelu", "act_gelu": "gelu", "act_swish": "silu",
    "act_mish": "mish", "nobias": "Linear", "rank3_nobias": "Linear", "embed": "Embedding",
    "ln": "LayerNorm", "ln_scale": "LayerNorm", "ln_2d": "LayerNorm", "bn": "BatchNorm", "bn_shift": "BatchNorm",
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
    assert "it has a shift without a scale" in model.refusal("LayerNorm")
    for rows in (1, 2, 7):
        model.check(numbers(rows))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_weights_are_named_after_the_layers(exported: Get, producer: str) -> None:
    program = exported(f"{producer} tensors").program
    state = program.state_dict()
    assert state["dense.weight"].shape == (8, 8)
    assert state["rank3.weight"].shape == (6, 8), "a kernel is [out, in] in PyTorch"
    assert {"embed.weight", "ln.weight", "ln.bias", "bn.running_mean", "bn.running_var", "prelu.weight"} <= set(state)
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


@pytest.mark.parametrize("producer", PRODUCERS)
def test_lookups(exported: Get, producer: str) -> None:
    model = exported(f"{producer} lookups")
    plain = ("plain", "oov_3", "masked", "masked_oov_2", "no_oov")
    for name in LOOKUPS:
        if name in plain:
            assert model.kind(f"string_{name}") == "StringLookup"
            assert model.kind(f"integer_{name}") == "IntegerLookup"
        elif name != "one_hot":
            assert model.kind(f"string_{name}") == model.kind(f"integer_{name}") == "CategoryEncoding"
    assert model.lifted.counts["StringLookup"] == model.lifted.counts["IntegerLookup"] == len(LOOKUPS)
    hashes = [name for name in model.lifted.graph.outputs if name.startswith("hash_") and "hot" not in name]
    assert {model.kind(name) for name in hashes} == {"Hashing"}
    assert model.kind("inverse") == "LookupTable" and "so it stays a table" in model.refusal("Lookup")
    for rows in (1, 2, 17):
        model.check(categories(rows))


def test_a_token_without_a_bucket_is_refused(exported: Get) -> None:
    batch = categories(2)
    batch["known"][1, 2] = b"nowhere"
    with pytest.raises(ValueError, match="When `num_oov_indices=0` all inputs should be in vocabulary"):
        run(exported("keras lookups").program, batch)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_lookups_equal_the_ops_on_any_input(exported: Get, data: Any) -> None:
    model = exported("keras lookups")
    texts = st.one_of(st.sampled_from(STRINGS.tolist()), st.binary(max_size=90))
    integers = st.one_of(st.sampled_from(INTEGERS.tolist()), st.integers(-(2**63), 2**63 - 1))
    batch = categories(2)
    for name, strategy in (("t", texts), ("t3", texts), ("n", integers), ("n3", integers)):
        drawn = data.draw(st.lists(strategy, min_size=batch[name].size, max_size=batch[name].size))
        batch[name] = np.array(drawn, batch[name].dtype).reshape(batch[name].shape)
    assert_same(model, batch)


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


@pytest.mark.parametrize("producer", PRODUCERS)
def test_texts(exported: Get, producer: str) -> None:
    model = exported(f"{producer} texts")
    whole = [name for name in TEXTS if name not in ("characters", "whole", "tf_idf")]
    assert {name: model.kind(name) for name in whole} == dict.fromkeys(whole, "TextVectorization")
    assert "its tokens come from 'unicode_encode'" in model.refusal("TextVectorization")
    assert model.kind("whole") == "StringLookup"
    for rows in (1, 2, 17):
        model.check(texts(rows))
    model.check({"t": np.array([[b""], [b" "]], object)})


@settings(max_examples=25, deadline=None)
@given(
    lines=st.lists(
        st.one_of(st.lists(st.sampled_from(PIECES)).map(b" ".join), st.binary(max_size=40)), min_size=1, max_size=4
    )
)
def test_texts_equal_the_ops_on_any_input(exported: Get, lines: list[bytes]) -> None:
    batch = np.empty((len(lines), 1), object)
    batch[:, 0] = lines
    assert_same(exported("keras texts"), {"t": batch})


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


def test_ids_that_cannot_leave_their_range_are_not_checked(exported: Get) -> None:
    """Keras 3 wraps negative ids and TensorFlow checks all: neither is left where a lookup gives them."""
    graph = exported("keras towers").lifted.graph
    ops = [node.op for node in graph.nodes]
    assert ops.count("in_range") == ops.count("wrap_negative") == 1, "only the ids that come from outside"
    names = {name: spec.type for name, spec in graph.modules.items()}
    assert names["words"] == "TextVectorization" and list(names.values()).count("TextVectorization") == 1
    model = exported("keras towers")
    ids = np.array([[-1], [9], [0], [-10], [3]], np.int32)
    model.check({**texts(5), "t2": texts(5, seed=1)["t"], "ids": ids})
    with pytest.raises(ValueError, match="is not in"):
        run(model.program, {**texts(1), "t2": texts(1)["t"], "ids": np.array([[-11]], np.int32)})
