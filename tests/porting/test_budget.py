"""Resource limits: every kind of amplification ends in one sentence, or the right answer, within its budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.budget import Budget, BudgetError, current, within
from porting.errors import PortingError
from porting.saved_model import read
from porting.tower import port_tower
from tests.porting.graphs import Call, const, function, node, save
from tests.torch_towers.budget import within_budget

T = {"T": "float32"}
_PORT = """
from porting.errors import PortingError
from porting.saved_model import read
try:
    print("ported", len(port_tower(read(sys.argv[1])).tf_graph.nodes))
except PortingError as error:
    print(error)
"""


def ported(folder: Path, **limits: int) -> str:
    """The result of a port in a separate process, within the limits of `within_budget`."""
    return within_budget(_PORT, str(folder), setup="from porting.tower import port_tower", **limits)


def twice(name: str, inner: str) -> Any:
    """A function that calls another two times."""
    calls = [
        node("first", "PartitionedCall", "x", f=Call(inner), Tin=["float32"], Tout=["float32"]),
        node("second", "PartitionedCall", "first:output:0", f=Call(inner), Tin=["float32"], Tout=["float32"]),
    ]
    return function(name, calls, "second:output:0")


def doubled(depth: int) -> list[Any]:
    """Functions of which each calls the next one twice."""
    last = function(f"f{depth}", [node("neg", "Neg", "x", **T)], "neg:y:0")
    return [*(twice(f"f{i}", f"f{i + 1}") for i in range(depth)), last]


CALL = node("call", "PartitionedCall", "x", f=Call("f0"), Tin=["float32"], Tout=["float32"])


# -- inlining -------------------------------------------------------------------------------------------------------------


def test_functions_that_double_are_refused_by_node_budget_and_option(tmp_path: Path) -> None:
    save(tmp_path, [CALL], {"y": ("float32", "call:0")}, doubled(22))
    said = ported(tmp_path)
    assert "--max-nodes" in said, said
    with pytest.raises(BudgetError, match=r"'call/.*': the graph has over 100 nodes"):
        port_tower(read(tmp_path), budget=Budget(nodes=100))


def test_functions_that_nothing_needs_are_not_inlined(tmp_path: Path) -> None:
    save(tmp_path, [CALL, node("y", "Neg", "x", **T)], {"y": ("float32", "y:0")}, doubled(40))
    assert ported(tmp_path) == "ported 1\n"


def test_calls_inside_a_function_that_nothing_needs_are_not_inlined(tmp_path: Path) -> None:
    unused = node("unused", "PartitionedCall", "x", f=Call("f0"), Tin=["float32"], Tout=["float32"])
    body = function("outer", [unused, node("neg", "Neg", "x", **T)], "neg:y:0")
    call = node("call", "PartitionedCall", "x", f=Call("outer"), Tin=["float32"], Tout=["float32"])
    save(tmp_path, [call], {"y": ("float32", "call:0")}, [body, *doubled(40)])
    assert ported(tmp_path) == "ported 1\n"


@pytest.mark.parametrize("op", ["If", "Case", "While"])
def test_branches_and_bodies_that_double_are_refused(tmp_path: Path, op: str) -> None:
    def nested(i: int) -> Any:
        attrs = {"Tin": ["float32"], "Tout": ["float32"]}
        test = [
            node("zero", "Const", dtype="int32", value=np.array(0, np.int32)),
            node("sum", "Sum", "x", "zero:output:0", T="float32", Tidx="int32"),
        ]
        inner = Call(f"f{i + 1}")
        if op == "If":
            made = node("n", "If", "sum:output:0", "x", Tcond="float32", then_branch=inner, else_branch=inner, **attrs)
        elif op == "Case":
            index = node("index", "Cast", "sum:output:0", SrcT="float32", DstT="int32")
            return function(
                f"f{i}",
                [*test, index, node("n", "Case", "index:y:0", "x", branches=[inner] * 3, **attrs)],
                "n:output:0",
            )
        else:
            loop = node("loop", "While", "x", cond=Call("positive"), body=inner, T=["float32"])
            made = node(
                "n", "ConcatV2", "loop:output:0", "loop:output:0", "zero:output:0", N=2, T="float32", Tidx="int32"
            )
        return function(f"f{i}", [*test, *([loop] if op == "While" else []), made], "n:output:0")

    zero = [const("zero", np.array(0, np.int32)), node("sum", "Sum", "x", "zero:output:0", T="float32", Tidx="int32")]
    positive = function(
        "positive", [*zero, node("cast", "Cast", "sum:output:0", SrcT="float32", DstT="bool")], "cast:y:0"
    )
    positive.signature.output_arg[0].type = 10
    last = function("f24", [node("neg", "Neg", "x", **T)], "neg:y:0")
    save(tmp_path, [CALL], {"y": ("float32", "call:0")}, [*map(nested, range(24)), last, positive])
    said = ported(tmp_path)
    assert "--max-nodes" in said, said


def test_long_names_of_nested_calls_are_refused(tmp_path: Path) -> None:
    name = "n" * 30_000
    functions = [
        function(f"f{i}", [node(name, f"f{i + 1}", "x")], f"{name}:y:0") for i in range(300)
    ]  # fmt: skip
    functions.append(function("f300", [node("neg", "Neg", "x", **T)], "neg:y:0"))
    save(tmp_path, [CALL], {"y": ("float32", "call:0")}, functions)
    said = ported(tmp_path)
    assert "--max-fold-bytes" in said, said
    assert len(said) < 1000


def test_a_hundred_branches_are_seven_deep(tmp_path: Path) -> None:
    branches = [function(f"b{i}", [node("neg", "Neg" if i % 2 else "Abs", "x", **T)], "neg:y:0") for i in range(100)]
    case = node("y", "Case", "i", "x", branches=[Call(f"b{i}") for i in range(100)], Tin=["float32"], Tout=["float32"])
    save(tmp_path, [case], {"y": ("float32", "y:0")}, branches, {"x": ("float32", (-1,)), "i": ("int32", ())})
    tower = port_tower(read(tmp_path)).tower()
    x = np.array([-1.5, 2.0], np.float32)
    for index in (-1, 0, 1, 2, 49, 50, 63, 98, 99, 100):
        expected = -x if index % 2 or index > 98 else abs(x)
        np.testing.assert_array_equal(tower({"x": x, "i": np.array(index, np.int32)})["y"], expected)


def test_a_thousand_branches_are_ten_deep(tmp_path: Path) -> None:
    branches = [function(f"b{i}", [node("neg", "Neg" if i % 2 else "Abs", "x", **T)], "neg:y:0") for i in range(1000)]
    case = node("y", "Case", "i", "x", branches=[Call(f"b{i}") for i in range(1000)], Tin=["float32"], Tout=["float32"])
    save(tmp_path, [case], {"y": ("float32", "y:0")}, branches, {"x": ("float32", (-1,)), "i": ("int32", ())})
    assert ported(tmp_path) == "ported 1\n"


def test_branches_nested_too_deep_are_refused(tmp_path: Path) -> None:
    attrs = {"Tin": ["float32"], "Tout": ["float32"], "Tcond": "float32"}
    zero = [const("zero", np.array(0, np.int32)), node("sum", "Sum", "x", "zero:output:0", T="float32", Tidx="int32")]
    functions = [
        function(f"f{i}", [*zero, node("n", "If", "sum:output:0", "x", then_branch=Call(f"f{i + 1}"), else_branch=Call("f500"), **attrs)], "n:output:0")
        for i in range(500)
    ]  # fmt: skip
    functions.append(function("f500", [node("neg", "Neg", "x", **T)], "neg:y:0"))
    save(tmp_path, [CALL], {"y": ("float32", "call:0")}, functions)
    assert "nested more than 32 deep" in ported(tmp_path)


# -- what is computed at port time ------------------------------------------------------------------------------------------


def folded(folder: Path, nodes: list[Any], result: str, dtype: str = "float32") -> str:
    """What becomes of a model that gives a constant."""
    save(folder, nodes, {"y": (dtype, result)})
    return ported(folder)


def test_many_large_constants_are_refused_together(tmp_path: Path) -> None:
    nodes = [const("zero", np.float32(0), [1 << 22])]
    nodes += [node(f"n{i}", "AddV2", f"n{i - 1}" if i else "zero", "one", **T) for i in range(400)]
    said = folded(tmp_path, [const("one", np.float32(1)), *nodes], "n399")
    assert "--max-fold-bytes" in said or "2**63 bytes" in said, said


@pytest.mark.parametrize("operand", ["x", "zero"], ids=["run time", "port time"])
def test_forty_constants_that_each_are_large(tmp_path: Path, operand: str) -> None:
    constants = [const(f"c{i}", np.float32(i + 1), [1 << 23]) for i in range(40)]
    sums = [node(f"n{i}", "Mul" if i % 2 else "AddV2", f"n{i - 1}" if i else operand, f"c{i}", **T) for i in range(40)]
    assert folded(tmp_path, [const("zero", np.float32(0)), *constants, *sums], "n39")


def test_a_loop_on_constants_does_not_run_at_port_time(tmp_path: Path) -> None:
    one, limit = const("one", np.float32(1)), const("limit", np.float32(1e9))
    body = function("body", [one, node("more", "AddV2", "x", "one:output:0", **T)], "more:z:0")
    cond = function("cond", [limit, node("less", "Less", "x", "limit:output:0", **T)], "less:z:0")
    cond.signature.output_arg[0].type = 10
    loop = node("loop", "While", "start", cond=Call("cond"), body=Call("body"), T=["float32"])
    save(
        tmp_path,
        [const("start", np.float32(0)), loop, node("y", "AddV2", "x", "loop", **T)],
        {"y": ("float32", "y:0")},
        [body, cond],
    )
    assert ported(tmp_path)


@pytest.mark.parametrize("shape", [[1 << 62], [1 << 30], [1 << 31, 1 << 31]])
@pytest.mark.parametrize("value", [np.float32(1), np.array(b"text", object)], ids=["float32", "string"])
def test_one_value_that_stands_for_very_many(tmp_path: Path, shape: list[int], value: Any) -> None:
    said = folded(tmp_path, [const("c", value, shape)], "c", "string" if isinstance(value, np.ndarray) else "float32")
    assert "--max-fold-bytes" in said or "2**63 bytes" in said, said


STRINGS = {
    "StringJoin": lambda i, x: node(f"n{i}", "StringJoin", x, x, N=2, separator=b""),
    "RegexReplace": lambda i, x: node(f"n{i}", "StaticRegexReplace", x, pattern=b".", rewrite=b"0123456789abcdef", replace_global=True),
    "ReduceJoin": lambda i, x: node(f"n{i}", "ReduceJoin", f"p{i}", "axis", keep_dims=False, separator=b""),
    "StringFormat": lambda i, x: node(f"n{i}", "StringFormat", x, x, T=["string", "string"], template=b"%s%s", placeholder=b"%s", summarize=3),
}  # fmt: skip


@pytest.mark.parametrize("op", STRINGS)
def test_strings_that_double_are_not_computed_at_port_time(tmp_path: Path, op: str) -> None:
    before = [f"n{i - 1}" if i else "c" for i in range(26)]
    nodes = [STRINGS[op](i, x) for i, x in enumerate(before)]
    if op == "ReduceJoin":
        nodes += [node(f"p{i}", "Pack", x, x, N=2, axis=0, T="string") for i, x in enumerate(before)]
    first = [const("c", np.array(b"0123456789abcdef", object)), const("axis", np.int32([0]))]
    assert folded(tmp_path, [*first, *nodes], "n25", "string")


LARGE = {
    "AsString": ([const("c", np.float32(1)), node("y", "AsString", "c", width=2_000_000_000, **T)], "string"),
    "a pattern of nested groups": (
        [const("c", np.array([b"a"], object)), node("y", "StaticRegexReplace", "c", pattern=b"(" * 100_000 + b"a" + b")" * 100_000, rewrite=rb"\1", replace_global=True)],
        "string"),
    "RaggedRange": (
        [const("a", np.int64([0])), const("b", np.int64([1 << 40])), const("c", np.int64([1])),
         node("r", "RaggedRange", "a", "b", "c", T="int64", Tsplits="int64"), node("y", "Identity", "r:1", T="int64")], "int64"),
    "SegmentSum": (
        [const("c", np.float32([1])), const("i", np.int64([1 << 32])), node("y", "SegmentSum", "c", "i", T="float32", Tindices="int64")],
        "float32"),
    "Range": (
        [const("a", np.float32(0)), const("b", np.float32(1)), const("c", np.float32(1e-12)), node("y", "Range", "a", "b", "c", Tidx="float32")],
        "float32"),
    "Fill": ([const("d", np.int64([1 << 40])), const("c", np.float32(0)), node("y", "Fill", "d", "c", T="float32", index_type="int64")], "float32"),
    "Sum of a splat": (
        [const("c", np.float32(1), [1 << 40]), const("a", np.int32([0])), node("y", "Sum", "c", "a", T="float32", Tidx="int32")], "float32"),
    "StringNGrams": (
        [const("c", np.array([b"a", b"b"], object)), const("s", np.int64([0, 2])),
         node("y", "StringNGrams", "c", "s", separator=b"", ngram_widths=[1 << 30], left_pad=b"p", right_pad=b"p", pad_width=-1,
              preserve_short_sequences=False, Tsplits="int64")], "string"),
    "StringNGrams of a pad": (
        [const("c", np.array([b"a", b"b"], object)), const("s", np.int64([0, 2])),
         node("y", "StringNGrams", "c", "s", separator=b"", ngram_widths=[2, 3], left_pad=b"p" * 1000, right_pad=b"p", pad_width=1 << 31,
              preserve_short_sequences=True, Tsplits="int64")], "string"),
    "StringFormat": (
        [const("c", np.array(b"x" * 100_000, object)), node("y", "StringFormat", *["c"] * 1000, T=["string"] * 1000, template=b"%s" * 1000, placeholder=b"%s", summarize=1 << 31)],
        "string"),
    "NgramsStringJoin of splits that do not match": (
        [const("c", np.array([b"a"], object)), const("s", np.int64([-(1 << 31), 100])),
         node("y", "TFText>NgramsStringJoin", "c", "s", width=1, axis=-1, string_separator=b"", RAGGED_RANK=1)], "string"),
    "NgramsStringJoin of a negative width": (
        [const("c", np.array([b"a"], object)),
         node("y", "TFText>NgramsStringJoin", "c", width=-(1 << 31), axis=-1, string_separator=b"", RAGGED_RANK=0)], "string"),
    "UnsortedSegmentJoin": (
        [const("c", np.array([b"a"], object)), const("i", np.int32([0])), const("n", np.int32((1 << 31) - 1)),
         node("y", "UnsortedSegmentJoin", "c", "i", "n", separator=b"", Tindices="int32", Tnumsegments="int32")], "string"),
    "HistogramFixedWidth": (
        [const("c", np.float32([1])), const("b", np.float32([0, 1])), const("n", np.int32((1 << 31) - 1)), node("h", "HistogramFixedWidth", "c", "b", "n", T="float32", dtype="int32"),
         node("y", "Identity", "h", T="int32")], "int32"),
    "DynamicStitch": ([const("c", np.float32([1])), const("i", np.int32([1 << 30])), node("y", "DynamicStitch", "i", "c", N=1, T="float32")], "float32"),
    "LRN": ([const("c", np.ones((1, 1, 1, 2), np.float32)), node("y", "LRN", "c", depth_radius=(1 << 31) - 1, bias=1.0, alpha=1.0, beta=0.5, T="float32")], "float32"),
    "Bincount": (
        [const("c", np.int32([1])), const("n", np.int32((1 << 31) - 1)), const("w", np.float32([1])), node("y", "Bincount", "c", "n", "w", T="float32")], "float32"),
    "OneHot": (
        [const("c", np.int32([1])), const("n", np.int32((1 << 31) - 1)), const("on", np.float32(1)), const("off", np.float32(0)),
         node("y", "OneHot", "c", "n", "on", "off", axis=-1, T="float32", TI="int32")], "float32"),
    "SparseReduceMax of 2^28 axes": (
        [const("i", np.zeros((1, 2), np.int64)), const("v", np.float32([1])), const("s", np.int64(3), [1 << 28]), const("a", np.int32([0])),
         node("y", "SparseReduceMax", "i", "v", "s", "a", T="float32")], "float32"),
    "FakeQuant": ([const("c", np.float32([1])), node("y", "FakeQuantWithMinMaxArgs", "c", num_bits=1 << 31)], "float32"),
    "a feature's name that stands for many": (
        [const("s", np.array([b""], object)), const("none", np.array([], object)), const("k", np.array(b"k", object), [1 << 28]),
         node("p", "ParseExampleV2", "s", "none", "none", "none", "k", Tdense=[], num_sparse=0, sparse_types=[], ragged_value_types=[], ragged_split_types=[], dense_shapes=[]),
         const("y", np.float32(0))], "float32"),
}  # fmt: skip


@pytest.mark.parametrize("op", LARGE)
def test_what_would_be_very_large_is_not_computed_at_port_time(tmp_path: Path, op: str) -> None:
    nodes, dtype = LARGE[op]
    assert folded(tmp_path, nodes, "y", dtype)


LONG = const("long", np.int32(1), [1 << 40])
LISTS: dict[str, list[Any]] = {
    "StridedSlice": [node("y", "StridedSlice", "x", "long", "long", "long", Index="int32", **T)],
    "StridedSlice of one step": [const("one", np.int32([1])), node("y", "StridedSlice", "x", "long", "long", "one", Index="int32", **T)],
    "Reshape": [node("y", "Reshape", "x", "long", Tshape="int32", **T)],
    "Transpose": [node("y", "Transpose", "x", "long", Tperm="int32", **T)],
    "Slice": [node("y", "Slice", "x", "long", "long", Index="int32", **T)],
    "Tile": [node("y", "Tile", "x", "long", Tmultiples="int32", **T)],
    "Sum": [node("y", "Sum", "x", "long", Tidx="int32", **T)],
    "Fill": [const("zero", np.float32(0)), node("y", "Fill", "long", "zero", index_type="int32", **T)],
    "BroadcastTo": [node("y", "BroadcastTo", "x", "long", Tidx="int32", **T)],
    "ReverseV2": [node("y", "ReverseV2", "x", "long", Tidx="int32", **T)],
    "Split": [const("axis", np.int32(0)), node("y", "SplitV", "x", "long", "axis", num_split=1, Tlen="int32", **T)],
}  # fmt: skip


@pytest.mark.parametrize("op", LISTS)
def test_a_list_of_sizes_or_axes_is_not_of_any_length(tmp_path: Path, op: str) -> None:
    """One value in the file is broadcast to 2^40."""
    save(tmp_path, [LONG, *LISTS[op]], {"y": ("float32", "y:0")})
    assert "[1099511627776]" in ported(tmp_path)


def test_shapes_that_are_squared_are_refused(tmp_path: Path) -> None:
    shape = [node("s", "Shape", "x", T="float32", out_type="int64"), const("zero", np.int32([0])),
             node("n0", "Prod", "s", "zero", T="int64", Tidx="int32", keep_dims=True)]  # fmt: skip
    squares = [node(f"n{i}", "Mul", f"n{i - 1}", f"n{i - 1}", T="int64") for i in range(1, 46)]
    nodes = [
        *shape,
        *squares,
        const("c", np.float32(0)),
        node("y", "Fill", "n45", "c", T="float32", index_type="int64"),
    ]
    assert "overflows int64" in folded(tmp_path, nodes, "y")


@pytest.mark.parametrize("size", [1 << 28, (1 << 31) - 1])
def test_an_input_too_large_to_be_made_up_is_ported_without_samples(tmp_path: Path, size: int) -> None:
    nodes = [node("y", "AddV2", "x", "z", **T)]
    save(tmp_path, nodes, {"y": ("float32", "y:0")}, (), {"x": ("float32", (-1, size)), "z": ("float32", (-1, 1))})
    assert ported(tmp_path) == "ported 1\n"


def test_an_input_of_very_many_elements_is_not_made_up_dozens_of_times(tmp_path: Path) -> None:
    total = [
        const("axes", np.int32([0, 1])),
        node("s", "Sum", "x", "axes", Tidx="int32", **T),
        node("y", "AddV2", "s", "z", **T),
    ]
    save(tmp_path, total, {"y": ("float32", "y:0")}, (), {"x": ("float32", (-1, 1 << 23)), "z": ("float32", (-1,))})
    assert ported(tmp_path) == "ported 3\n"


# -- the budget itself --------------------------------------------------------------------------------------------------------


def test_a_spent_budget_stays_spent() -> None:
    budget = Budget(nodes=3)
    budget.spend("nodes", 3, "a")
    for _ in range(2):
        with pytest.raises(BudgetError, match=r"'b': the graph has over 3 nodes .* --max-nodes"):
            budget.spend("nodes", 1, "b")
    assert issubclass(BudgetError, PortingError)


def test_the_current_budget_is_that_of_the_port_around() -> None:
    with within(Budget(nodes=1)) as budget:
        assert current() is budget
    assert current() is not budget
