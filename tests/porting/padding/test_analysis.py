"""Dataflow decides which encoders may truncate rows; accepted ones run both ways, refused ones give a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.conversion.emitter import Emitter
from porting.conversion.values import constant
from porting.padding.analysis import Found, find
from torch_towers.graph.graph import Graph, TensorSpec
from torch_towers.program.padding import run_cut
from torch_towers.program.program import Program

LENGTH, DIM = 6, 4
Write = Callable[..., Any]


def encoder(write: Callable[[Emitter, Any, Any], Any]) -> tuple[Graph, dict[str, Any]]:
    """`write(t, ids, x)` as an encoder of `ids [rows, 6]` and `x [rows, 6, 4]`, in float64."""
    t = Emitter([TensorSpec("ids", "int64", (None, LENGTH)), TensorSpec("x", "float64", (None, LENGTH, DIM))])
    ids, x = (t.value(spec.name, spec.dtype, ("n", *(spec.shape or ())[1:])) for spec in t.inputs)
    graph = t.graph({"out": write(t, ids, x)})
    return graph, t.store


def tensor(*shape: int, seed: int = 0) -> Any:
    return constant(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def number(value: float) -> Any:
    return constant(torch.tensor(value, dtype=torch.float64))


def rows(seed: int = 0, count: int = 9) -> dict[str, torch.Tensor]:
    """Rows of every length, an empty one, one with a gap; padding positions have random numbers."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 5, (count, LENGTH), generator=draw)
    ids *= torch.arange(LENGTH) < (torch.arange(count) % (LENGTH + 1)).unsqueeze(1)
    ids[-1] = torch.tensor([1, 0, 2, 0, 0, 0])
    return {"ids": ids, "x": torch.randn(count, LENGTH, DIM, generator=draw, dtype=torch.float64)}


def apart(graph: Graph, found: Found, store: dict[str, Any], seed: int = 0) -> float:
    """The maximum difference between the two ways."""
    given = rows(seed)
    whole = Program(graph, store)(**given)["out"]
    assert torch.equal(Program(found.encoder, store)(**given)["out"].isnan(), whole.isnan())
    program = Program(found.encoder, store)
    cut = run_cut(lambda inputs, _: program(**inputs), given, found.padding, budget=7.0, splittable=True)["out"]
    assert torch.equal(cut.isnan(), whole.isnan())
    return float((cut - whole).detach().nan_to_num().abs().max())


def mask(t: Emitter, ids: Any) -> Any:
    return t.not_equal(ids, 0)


def attended(t: Emitter, ids: Any, x: Any, where: Any) -> Any:
    return t.attention(x, x, x, where, scale=0.5)


def low_scores(t: Emitter, ids: Any, x: Any) -> Any:
    low = t.mul(t.sub(1.0, t.cast(mask(t, ids), dtype="float64")), -1e9)
    scores = t.add(t.matmul(x, t.matrix_transpose(x)), t.unsqueeze(low, axis=1))
    return t.matmul(t.softmax(scores), x)


def dense(equation: str, shape: tuple[int, ...], bias: tuple[int, ...]) -> Write:
    def write(t: Emitter, ids: Any, x: Any) -> Any:
        name = f"dense_{len(t.store)}"
        t.store[f"{name}.weight"], t.store[f"{name}.bias"] = tensor(*shape).array, tensor(*bias, seed=1).array
        args = {"equation": equation, "shape": shape, "bias_shape": bias}
        return t.module("EinsumDense", name, args, x)

    return write


STEPS: dict[str, Write] = {
    "attention": lambda t, ids, x: attended(t, ids, x, t.unsqueeze(mask(t, ids), axis=1)),
    "both": lambda t, ids, x: attended(
        t, ids, x, t.logical_and(t.unsqueeze(mask(t, ids), axis=1), t.unsqueeze(mask(t, ids), axis=2))
    ),
    "by hand": low_scores,
    "positions": lambda t, ids, x: t.add(x, tensor(LENGTH, DIM)),
    "places": lambda t, ids, x: t.mul(x, tensor(LENGTH, 1, seed=1)),
    "bent": lambda t, ids, x: t.gelu(x, form="erf"),
    "mixed": lambda t, ids, x: t.matmul(x, tensor(DIM, DIM, seed=2)),
    "turned": lambda t, ids, x: t.transpose(t.transpose(x, perm=(0, 2, 1)), perm=(0, 2, 1)),
    "heads": lambda t, ids, x: t.reshape(t.reshape(x, -1, LENGTH, 2, 2), -1, LENGTH, DIM),
    "masked": lambda t, ids, x: t.where(t.unsqueeze(mask(t, ids), axis=2), x, number(0.0)),
    "sums": lambda t, ids, x: t.cumsum(x, axis=1),
    "wide": lambda t, ids, x: t.concat(x, x, axis=2),
    "narrow": lambda t, ids, x: t.slice(x, 0, DIM, axis=2, step=1),
    "by number": dense("abc,c->abc", (DIM,), (1, DIM)),
    # mixes positions with padding
    "by place": dense("abc,bcd->abd", (LENGTH, DIM, DIM), (DIM,)),
    "over places": dense("abc,bd->adc", (LENGTH, LENGTH), (1,)),
    "bias of places": dense("abc,cd->abd", (DIM, DIM), (LENGTH, 1)),
    "open": lambda t, ids, x: attended(t, ids, x, None),
    "later": lambda t, ids, x: attended(t, ids, x, t.unsqueeze(t.equal(ids, 0), axis=1)),
    "own mask": lambda t, ids, x: attended(
        t, ids, x, t.logical_and(t.unsqueeze(mask(t, ids), axis=1), constant(torch.ones(LENGTH, LENGTH).tril(-1).bool()))
    ),
    "low mask": lambda t, ids, x: t.matmul(t.softmax(t.add(t.matmul(x, t.matrix_transpose(x)), constant(
        torch.full((LENGTH, LENGTH), -1e9, dtype=torch.float64).triu()))), x),
    "from the end": lambda t, ids, x: t.flip(x, axes=(1,)),
    "back": lambda t, ids, x: t.cumsum(x, axis=1, reverse=True),
    "centred": lambda t, ids, x: t.sub(x, t.reduce_mean(x, axes=(1,), keepdim=True)),
    "rows": lambda t, ids, x: t.reshape(t.reshape(x, -1, LENGTH * DIM), -1, LENGTH, DIM),
    "rolled": lambda t, ids, x: t.concat(
        t.slice(x, 1, None, axis=1, step=1), t.slice(x, 0, 1, axis=1, step=1), axis=1),
}  # fmt: skip
ENDS: dict[str, Write] = {
    "average": lambda t, ids, x: t.div(
        t.reduce_sum(t.where(t.unsqueeze(mask(t, ids), axis=2), x, number(0.0)), axes=(1,)),
        t.reduce_sum(t.cast(t.unsqueeze(mask(t, ids), axis=2), dtype="float64"), axes=(1,)),
    ),
    "weighted": lambda t, ids, x: t.weighted_sum(x, mask(t, ids)),
    "first": lambda t, ids, x: t.select(x, 0, axis=1),
    "largest": lambda t, ids, x: t.reduce_max(t.where(t.unsqueeze(mask(t, ids), axis=2), x, number(-1e9)), axes=(1,)),
    # lets padding contribute
    "mean": lambda t, ids, x: t.reduce_mean(x, axes=(1,)),
    "sum": lambda t, ids, x: t.reduce_sum(x, axes=(1,)),
    "last": lambda t, ids, x: t.select(x, -1, axis=1),
    "top": lambda t, ids, x: t.reduce_max(t.relu(x), axes=(1,)),
}


def chain(steps: list[str], end: str) -> Callable[[Emitter, Any, Any], Any]:
    def write(t: Emitter, ids: Any, x: Any) -> Any:
        for name in steps:
            x = STEPS[name](t, ids, x)
        return ENDS[end](t, ids, x)

    return write


def beside_a_mask(steps: list[str], end: str) -> Callable[[Emitter, Any, Any], Any]:
    """The chain, and next to it a masked sum that is independent of padding."""
    return lambda t, ids, x: t.add(chain(steps, end)(t, ids, x), chain(["mixed"], "weighted")(t, ids, x))


GOOD = (
    "attention",
    "both",
    "by hand",
    "positions",
    "places",
    "bent",
    "mixed",
    "turned",
    "heads",
    "masked",
    "sums",
    "by number",
)


@pytest.mark.parametrize("end", ["average", "weighted", "first", "largest"])
@pytest.mark.parametrize("step", GOOD)
def test_padding_is_left_out(step: str, end: str) -> None:
    graph, store = encoder(beside_a_mask([step, "mixed"], end))
    found = find(graph, store, {})
    assert [each.along for each in found.padding] == [("ids", "x")], found.refused
    assert apart(graph, found, store) < 1e-12  # rounding of float64, of values below 10


@pytest.mark.parametrize(("steps", "end", "sentence"), [
    (["open"], "average", "it has no mask"),
    (["later"], "average", "does not exclude padding"),
    (["own mask"], "average", "may exclude everything"),
    (["low mask"], "average", "may be fully masked"),
    (["from the end"], "average", "its positions are reversed"),
    (["back"], "average", "start at the end of the row"),
    (["centred"], "average", "padding contributes to it"),
    (["rows"], "average", "merges positions with other axes"),
    (["by place"], "average", "has a part for each position"),
    (["over places"], "average", "has a part for each position"),
    (["bias of places"], "average", "its bias has a part for each position"),
    (["rolled"], "average", "not counted from the first"),
    ([], "mean", "padding contributes to it"),
    ([], "last", "other than the first"),
    ([], "top", "padding contributes to it"),
])  # fmt: skip
def test_what_may_depend_on_padding_is_named(steps: list[str], end: str, sentence: str) -> None:
    graph, store = encoder(beside_a_mask(steps, end))
    found = find(graph, store, {})
    assert found.padding == ()
    assert any(sentence in line for line in found.refused), found.refused


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*STEPS]).filter(lambda name: name != "narrow"), max_size=4), st.sampled_from([*ENDS]), st.integers(0, 99)
)  # fmt: skip
def test_what_is_left_out_changes_nothing(steps: list[str], end: str, seed: int) -> None:
    steps = [part for name in steps for part in (["wide", "narrow"] if name == "wide" else [name])]
    graph, store = encoder(chain(steps, end))
    found = find(graph, store, {})
    if found.padding:
        assert apart(graph, found, store, seed) < 1e-9 * 4**4  # four products of numbers up to 4


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "SimpleRNN"])
def test_recurrent_layers(kind: str) -> None:
    gates = {"GRU": 3, "LSTM": 4, "SimpleRNN": 1}[kind]

    def layer(t: Emitter, name: str, x: Any, *mask: Any, **flags: bool) -> Any:
        for part, width in (("weight_ih", DIM), ("weight_hh", 5)):
            t.store[f"{name}.{part}"] = tensor(gates * 5, width, seed=len(name)).array
        return t.module(kind, name, {"input_size": DIM, "hidden_size": 5, "bias": False, **flags}, x, *mask)

    def write(t: Emitter, ids: Any, x: Any) -> Any:
        there = layer(t, "forth", x, mask(t, ids), return_sequences=True)
        back = layer(t, "back", x, mask(t, ids), return_sequences=True, go_backwards=True)
        both = t.concat(there, t.flip(back, axes=(1,)), axis=-1)
        return t.add(t.weighted_sum(both, mask(t, ids)), t.concat(
            layer(t, "last", x, mask(t, ids)), layer(t, "first", x, mask(t, ids), go_backwards=True), axis=-1))  # fmt: skip

    graph, store = encoder(write)
    found = find(graph, store, {})
    assert [each.along for each in found.padding] == [("ids", "x")], found.refused
    assert apart(graph, found, store) < 1e-12

    open_end, store = encoder(
        lambda t, ids, x: t.concat(layer(t, "open", x), chain(["mixed"], "weighted")(t, ids, x), axis=-1)
    )
    assert any("it has no mask" in line for line in find(open_end, store, {}).refused)


def test_two_texts_end_where_each_of_them_ends() -> None:
    t = Emitter([TensorSpec(name, "int64", (None, size)) for name, size in (("a", 6), ("b", 6), ("c", 9))])
    ids = [t.value(spec.name, spec.dtype, ("n", (spec.shape or ())[1])) for spec in t.inputs]
    rows = [t.matmul(t.unsqueeze(t.cast(x, dtype="float64"), axis=2), tensor(1, DIM)) for x in ids]
    sums = [t.weighted_sum(row, mask(t, x)) for row, x in zip(rows, ids, strict=True)]
    graph = t.graph({"out": t.concat(*sums, axis=1)})
    found = find(graph, t.store, t.known)
    assert found == find(graph, t.store, {})  # what is known is what would be inferred
    assert [(each.input, each.along) for each in found.padding] == [("a", ("a",)), ("b", ("b",)), ("c", ("c",))]
    draw = torch.Generator().manual_seed(0)
    given = {
        name: torch.randint(0, 3, (20, size), generator=draw).cumprod(1)
        for name, size in (("a", 6), ("b", 6), ("c", 9))
    }
    program = Program(found.encoder, t.store)
    cut = run_cut(lambda inputs, _: program(**inputs), given, found.padding, budget=12.0, splittable=True)
    whole = Program(graph, t.store)(**given)["out"]
    assert float((cut["out"] - whole).abs().max()) < 1e-12
