"""Fused calls equal the single calls, and fall back to them when necessary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.torch_towers.towers import strings
from torch_towers import layers as _layers  # noqa: F401  fills MODULES
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.kernels import native
from torch_towers.layers import conv
from torch_towers.program.binding import steps_of
from torch_towers.program.fusion import plan_of
from torch_towers.program.program import Program

ROWS, LENGTH, WORDS, DIM = 40, 12, 50, 16


def mean_of_words(*more: Node, outputs: dict[str, str] | None = None) -> Program:
    """The masked average of embeddings that GlobalAveragePooling1D ports to."""
    nodes = (
        Node("mask", "not_equal", ("ids", 0)),
        Node("rows", "module", ("ids",), {"module": "table"}),
        Node("sum", "weighted_sum", ("rows", "mask")),
        *more,
    )
    inputs = (TensorSpec("ids", "int64", ("batch", LENGTH)),)
    modules = {"table": ModuleSpec("Embedding", {"num_embeddings": WORDS, "embedding_dim": DIM})}
    weight = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(0))
    return Program(Graph(inputs, nodes, outputs or {"sum": "sum"}, modules), {"table.weight": weight})


def ids(dtype: torch.dtype = torch.int64) -> Tensor:
    made = torch.randint(0, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1), dtype=dtype)
    return made * (torch.arange(LENGTH) < torch.arange(ROWS)[:, None] % (LENGTH + 1)).to(dtype)


def one_by_one(program: Program, **inputs: Any) -> dict[str, Any]:
    env = dict(inputs)
    for name, run in program.steps:
        env[name] = run(program, env)
    return env


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_weighted_sum_of_embeddings_is_one_call(dtype: torch.dtype) -> None:
    program = mean_of_words()
    assert [name for name, _ in program._plan] == ["mask", "sum"]
    with torch.no_grad():
        found, slow = program(ids=ids(dtype))["sum"], one_by_one(program, ids=ids(dtype))["sum"]
    assert found.shape == slow.shape and found.dtype == slow.dtype
    torch.testing.assert_close(found, slow, rtol=0, atol=LENGTH * 2**-23)  # an ulp of each of the sum's terms


def test_a_masked_average_of_embeddings_is_one_call() -> None:
    average = Node("average", "module", ("rows", "mask"), {"module": "average"})
    whole = mean_of_words().graph
    nodes = (*whole.nodes[:2], average)
    modules = {**whole.modules, "average": ModuleSpec("MaskedAverage", {})}
    weight = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(0))
    program = Program(Graph(whole.inputs, nodes, {"average": "average"}, modules), {"table.weight": weight})
    assert [name for name, _ in program._plan] == ["mask", "average"]
    with torch.no_grad():
        found, slow = program(ids=ids())["average"], one_by_one(program, ids=ids())["average"]
    assert found.isnan().any()  # of the rows without a word
    torch.testing.assert_close(found, slow, rtol=0, atol=2**-22, equal_nan=True)  # an average of sums in another order


def test_not_finite_rows_are_added_under_a_mask_too() -> None:
    program = mean_of_words()
    with torch.no_grad():
        program.get_submodule("table").weight[0] = float("inf")  # type: ignore[index]
        found, slow = program(ids=ids())["sum"], one_by_one(program, ids=ids())["sum"]
    assert found.isnan().any() and torch.equal(found.isnan(), slow.isnan())


def test_what_something_else_reads_stays() -> None:
    assert len(mean_of_words(outputs={"sum": "sum", "rows": "rows"})._plan) == 3
    assert len(mean_of_words(Node("other", "relu", ("rows",)))._plan) == 4


def test_ids_out_of_the_table_are_refused() -> None:
    program = mean_of_words()
    for bad in (WORDS, -1):
        with torch.no_grad(), pytest.raises((IndexError, RuntimeError)):
            program(ids=torch.full((ROWS, LENGTH), bad))


def test_gradients_hooks_and_swapped_layers_take_the_single_calls() -> None:
    program = mean_of_words()
    program(ids=ids())["sum"].sum().backward()
    table = program.get_submodule("table")
    assert table.weight.grad is not None  # type: ignore[union-attr]
    seen: list[tuple[int, ...]] = []
    hook = table.register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    with torch.no_grad():
        program(ids=ids())
        assert seen == [(ROWS, LENGTH, DIM)]
        hook.remove()

        class Doubled(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * table(x)

        before = program(ids=ids())["sum"]
        program.add_module("table", Doubled())
        torch.testing.assert_close(program(ids=ids())["sum"], 2 * before)


def test_a_plan_keeps_every_step_that_is_not_fused() -> None:
    graph = Graph(
        (TensorSpec("x", "float32", ("batch",)),), (Node("y", "relu", ("x",)), Node("z", "relu", ("y",))), {"z": "z"}
    )
    assert [name for name, _ in plan_of(graph, {}, steps_of(graph, {}))] == ["y", "z"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mask_is_counted_in_one_call(dtype: str) -> None:
    nodes = (
        Node("mask", "not_equal", ("ids", 0)),
        Node("column", "unsqueeze", ("mask",), {"axis": 2}),
        Node("floats", "cast", ("column",), {"dtype": dtype}),
        Node("count", "reduce_sum", ("floats",), {"axes": (1,), "keepdim": False}),
    )
    program = Program(Graph((TensorSpec("ids", "int64", ("batch", LENGTH)),), nodes, {"count": "count"}), {})
    assert [name for name, _ in program._plan] == ["mask", "count"]
    found, slow = program(ids=ids())["count"], one_by_one(program, ids=ids())["count"]
    assert found.dtype == slow.dtype and found.equal(slow)


TEXTS = [
    b"",
    b"The Reading of WORDS",
    "naïve Tests, testing".encode(),
    b"\xff not UTF-8",
    b"a\x0bb",
    b" about  ",
    b"x" * 300,
]
CHANGES = (
    Node("lowered", "lower", ("text",), {"encoding": ""}),
    Node("plain", "regex_replace", ("lowered",), {"pattern": b"[^a-z0-9+#]+", "rewrite": b" ", "replace_global": True}),
    Node("stem", "regex_replace", ("plain",), {"pattern": rb"\b([a-z]{3,}?)(?:ings?|s)\b", "rewrite": rb"\1", "replace_global": True}),
    Node("about", "constant", (), {"tensor": "about"}),
    Node("joined", "string_join", ("about", "stem"), {"separator": b" "}),
)  # fmt: skip


@pytest.mark.skipif(native.core is None, reason="without the native core each op runs by itself")
def test_changes_of_a_text_are_one_pass() -> None:
    args = {"vocabulary": "words", "first_id": 2, "oov_id": 1, "output_mode": "int", "length": 6, "pad_id": 0}
    nodes = (*CHANGES, Node("ids", "module", ("joined",), {"module": "vectors"}))
    graph = Graph((TensorSpec("text", "string", ("batch",)),), nodes, {"ids": "ids"}, {"vectors": ModuleSpec("TextVectorization", args)})  # fmt: skip
    about = np.empty((), dtype=object)
    about[()] = b"about"
    program = Program(graph, {"words": strings([b"about", b"read", b"word", b"test", b"a"]), "about": about})
    assert [name for name, _ in program._plan] == ["ids"]
    texts = strings(TEXTS * 3)
    found, slow = program(text=texts)["ids"], one_by_one(program, text=texts)["ids"]
    assert found.equal(slow) and found[1].tolist() == [2, 1, 3, 1, 4, 0]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images in one step too."""
    monkeypatch.setattr(conv, "MANY", 0)


def image_tower(
    kernel: int, stride: int, activation: dict[str, Any] | None, *, norm: bool = True, groups: int = 1
) -> Program:
    """A convolution, perhaps its normalization and an activation, between others."""
    made = torch.Generator().manual_seed(kernel + stride)
    args = {"in_channels": 4, "out_channels": 8, "kernel_size": (kernel, kernel), "stride": (stride, stride)}
    modules = {"conv": ModuleSpec("Conv2d", {**args, "padding": "SAME", "groups": groups})}
    weights = {
        "conv.weight": torch.randn(8, 4 // groups, kernel, kernel, generator=made),
        "conv.bias": torch.randn(8, generator=made),
    }
    nodes = [Node("conv", "module", ("x",), {"module": "conv"})]
    if norm:
        modules["norm"] = ModuleSpec("BatchNorm", {"num_features": 8, "eps": 1e-3})
        weights |= {
            f"norm.{part}": torch.rand(8, generator=made) + 0.1
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        nodes.append(Node("norm", "module", ("conv",), {"module": "norm"}))
    if activation is not None:
        nodes.append(
            Node("act", activation["op"], (nodes[-1].name,), {key: v for key, v in activation.items() if key != "op"})
        )
    inputs = (TensorSpec("x", "float32", ("batch", None, None, 4)),)
    return Program(Graph(inputs, tuple(nodes), {"y": nodes[-1].name}, modules), weights)


ACTIVATIONS = [None, {"op": "relu"}, {"op": "relu6"}, {"op": "relu", "no_nan": True}, {"op": "relu6", "no_nan": True}]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize(("kernel", "stride", "size"), [(1, 1, 9), (3, 2, 9), (5, 1, 2), (3, 1, 0)])
@pytest.mark.usefixtures("small")
def test_convolutions(kernel: int, stride: int, size: int, activation: dict[str, Any] | None, groups: int) -> None:
    """With the normalization in the kernel (many places) and behind it (few); NaN as single calls have it."""
    for norm in (True, False):
        program = image_tower(kernel, stride, activation, norm=norm, groups=groups)
        x = torch.randn(2, size, size + 1, 4, generator=torch.Generator().manual_seed(size))
        if size:
            x[0, 0, 0, 0] = torch.nan
        given = x.clone()
        with torch.no_grad():
            expected, found = program.values(x=x)[program.graph.nodes[-1].name], program(x=x)["y"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)  # sums in another order
        assert torch.equal(x.nan_to_num(), given.nan_to_num()), "the operand is as it was"
        followed = program(x=x.requires_grad_())["y"]
        torch.testing.assert_close(followed, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("small")
def test_a_changed_normalization_is_seen_at_once() -> None:
    program = image_tower(1, 1, {"op": "relu"})
    x = torch.randn(3, 9, 9, 4)
    with torch.no_grad():
        before = program(x=x)["y"]
        program.get_submodule("norm").weight.data.mul_(2.0)
        program.get_submodule("conv").weight.data.mul_(3.0)
        found = program(x=x)["y"]
        # the normalization is multiplied into the kernel, or onto the sums: float32 roundings of sums of four products
        torch.testing.assert_close(found, program.values(x=x)["act"], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, before)


@pytest.mark.usefixtures("small")
def test_a_swapped_convolution_is_called() -> None:
    program = image_tower(1, 1, {"op": "relu"})
    program.conv = nn.Identity()
    program.norm = nn.Identity()
    x = torch.randn(2, 5, 5, 4)
    with torch.no_grad():
        assert torch.equal(program(x=x)["y"], x.relu())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float64])
def test_integers_are_scaled_in_the_memory_of_their_floats(dtype: torch.dtype) -> None:
    """Also in the body of a loop. The operand stays as it is, and numbers that are floats already are not changed."""
    nodes = (
        Node("floats", "cast", ("x",), {"dtype": "float32"}),
        Node("scaled", "mul", ("floats", 0.003921568859368563)),
    )
    graph = Graph((TensorSpec("x", "int64", (None,)),), nodes, {"scaled": "scaled"}, {})
    program = Program(graph, {})
    x = torch.tensor([0, 1, 77, 127]).to(dtype)
    given = x.clone()
    assert [name for name, _ in program._plan] == ["scaled"]
    assert torch.equal(program(x=x)["scaled"], one_by_one(program, x=x)["scaled"])
    assert torch.equal(x, given)
    body = Graph((TensorSpec("step", "int64", ()), *graph.inputs), nodes, graph.outputs, {})
    steps = Node("steps", "map_steps", (2, "x"), {"body": body, "results": 1, "threads": False})
    looped = Program(Graph(graph.inputs, (steps,), {"steps": "steps:0"}, {}), {})(x=x)["steps"]
    assert all(torch.equal(each, one_by_one(program, x=x)["scaled"]) for each in looped)
