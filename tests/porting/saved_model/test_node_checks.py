"""Nodes that contradict TensorFlow's definition of their op: exactly those that TensorFlow refuses to load are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import CorruptModelError
from porting.saved_model import read
from porting.saved_model.op_definitions import definition
from porting.tower import port_tower
from tests.porting.graphs import Call, const, function, node, save

F = {"T": "float32"}
TEXT = const("text", np.array([b"a"], object))
AXIS = const("axis", np.array(0, np.int32))

# The nodes, of which the last one is wrong, and what is said of it.
WRONG: dict[str, tuple[list[Any], str]] = {
    "no type": ([node("y", "Neg", "x")], "lacks its attribute 'T'"),
    "another type": ([node("y", "Neg", "x", T="int64")], "takes 'x', which is float32, expected int64"),
    "a type that the op does not take": ([node("y", "Neg", "x", T="string")], "has 'string' as 'T', expected one of"),
    "a value of another kind": ([node("y", "Neg", "x", T=3)], "attribute 'T' of another kind, expected type"),
    "an operand too many": ([node("y", "Neg", "x", "x", **F)], "has 2 operands, expected 1"),
    "an operand too few": ([node("y", "AddV2", "x", **F)], "has 1 operands, expected 2"),
    "too small a number": ([TEXT, node("y", "StringToHashBucketFast", "text", num_buckets=0)], "has 0 as 'num_buckets', expected at least 1"),
    "no number": ([TEXT, node("y", "StringToHashBucketFast", "text")], "lacks its attribute 'num_buckets'"),
    "N of other operands": ([node("y", "AddN", "x", "x", N=3, **F)], "has 2 operands, expected 3"),
    "N below its minimum": ([node("y", "Pack", N=0, axis=0, **F)], "has 0 as 'N', expected at least 1"),
    "very many results": ([AXIS, node("y", "Split", "axis", "x", num_split=250_000_000, **F)], "num_split = 250000000"),
    "a result that there is not": ([node("a", "Neg", "x", **F), node("y", "Neg", "a:1", **F)], "has 1 such outputs"),
    "types of other operands": ([node("y", "IdentityN", "x", T=["float32", "float32"])], "has 1 operands, expected 2"),
    "a list too short": ([node("y", "IdentityN", T=[])], "has 0 values as 'T'|lacks|expected at least 1"),
    "a word that is none": ([TEXT, node("y", "UnicodeScript", "x")], "which is float32, expected int32"),
    "a text of no choice": ([node("y", "LeakyRelu", "x", alpha=b"x", **F)], "attribute 'alpha' of another kind"),
    "an encoding that there is not": ([TEXT, node("y", "UnicodeEncode", "axis", "axis", output_encoding=b"latin-1", Tsplits="int32")], "'latin-1' as 'output_encoding'"),
    "a call without types": ([node("y", "PartitionedCall", "x", f=Call("f"))], "lacks its attribute 'Tin'"),
}  # fmt: skip
NEG = function("f", [node("neg", "Neg", "x", **F)], "neg:y:0")


@pytest.mark.parametrize("case", WRONG)
def test_what_an_op_does_not_take(tmp_path: Path, case: str) -> None:
    nodes, error = WRONG[case]
    save(tmp_path, [*([AXIS] if case.startswith("an encoding") else []), *nodes], {"y": ("float32", "y:0")}, [NEG])
    with pytest.raises(CorruptModelError, match=error) as caught:
        read(tmp_path).graph("serving_default")
    assert str(tmp_path) in str(caught.value)
    assert "node 'y'" in str(caught.value)
    assert case == "very many results" or refused_by_tensorflow(tmp_path)  # the first takes gigabytes there


def test_what_an_op_takes(tmp_path: Path) -> None:
    nodes = [
        AXIS, TEXT, node("split", "Split", "axis", "x", num_split=2, **F), node("a", "Neg", "split:1", **F),
        node("hash", "StringToHashBucketFast", "text", num_buckets=1), node("f", "Cast", "hash", SrcT="int64", DstT="float32"),
        node("y", "AddN", "a", "f", "x", N=3, **F),
    ]  # fmt: skip
    save(tmp_path, nodes, {"y": ("float32", "y:0")})
    assert len(read(tmp_path).graph("serving_default").nodes) == len(nodes)
    assert not refused_by_tensorflow(tmp_path)


def test_types_that_a_call_gives_are_not_guessed(tmp_path: Path) -> None:
    body = node("neg", "Neg", "x")
    body.attr["T"].placeholder = "T"
    call = node("y", "PartitionedCall", "x", f=Call("g"), Tin=["float32"], Tout=["float32"])
    call.attr["f"].func.attr["T"].type = 1
    save(tmp_path, [call], {"y": ("float32", "y:0")}, [function("g", [body], "neg:y:0")])
    assert read(tmp_path).functions["g"].nodes[0].op == "Neg"


def test_bodies_of_functions_are_checked_too(tmp_path: Path) -> None:
    call = node("y", "PartitionedCall", "x", f=Call("g"), Tin=["float32"], Tout=["float32"])
    save(tmp_path, [call], {"y": ("float32", "y:0")}, [function("g", [node("neg", "Neg", "x", T="int32")], "neg:y:0")])
    with pytest.raises(CorruptModelError, match=r"function 'g': node 'neg' .* which is float32, expected int32"):
        _ = read(tmp_path).functions["g"].nodes


def waiting(made: Any, *names: str) -> Any:
    """A node that runs after others."""
    made.input.extend(f"^{name}" for name in names)
    return made


A, B = (waiting(node(name, "Neg", "x", **F), other) for name, other in ("ab", "ba"))
BODY_CALL = [node("call", "PartitionedCall", "x", f=Call("f"), Tin=["float32"], Tout=["float32"])]
NAMELESS = function("f", [node("neg", "Neg", "x", **F)], "neg:y:0")
NAMELESS.signature.control_output.append("c")
NAMELESS.control_ret["c"] = "nope"

# The nodes, the output, the functions, and what is said.
BODIES: dict[str, tuple[list[Any], str, list[Any], str]] = {
    "a result that there is not": (BODY_CALL, "call:0", [function("f", [node("neg", "Neg", "x", **F)], "neg:y:5")], "output 'y' is 'neg:y:5', but 'neg' .* has 1"),
    "a result of no name": (BODY_CALL, "call:0", [function("f", [node("neg", "Neg", "x", **F)], "neg:z:0")], "has 0 such outputs"),
    "an argument's second tensor": (BODY_CALL, "call:0", [function("f", [], "x:3")], "but 'x' is one tensor"),
    "an operand that there is not": (BODY_CALL, "call:0", [function("f", [node("a", "Neg", "x", **F), node("b", "Neg", "a:y:4", **F)], "b:y:0")], "takes 'a:y:4'"),
    "a control output that there is not": (BODY_CALL, "call:0", [NAMELESS], "a control output is '.nope', which is not in the graph"),
    "two nodes of one name": (BODY_CALL, "call:0", [function("f", [node("a", "Neg", "x", **F), node("a", "Abs", "x", **F)], "a:y:0")], "two nodes or arguments of one name"),
    "two arguments of one name": (BODY_CALL, "call:0", [function("f", [node("a", "Neg", "x", **F)], "a:y:0", ["x", "x"])], "two nodes or arguments of one name"),
    "a cycle of controls": (BODY_CALL, "call:0", [function("f", [A, B, node("y", "AddV2", "a:y:0", "b:y:0", **F)], "y:z:0")], "needs its own result"),
    "a cycle that nothing needs": (BODY_CALL, "call:0", [function("f", [A, B, node("y", "Neg", "x", **F)], "y:y:0")], "needs its own result"),
    "a cycle of data": (BODY_CALL, "call:0", [function("f", [node("a", "Neg", "b:y:0", **F), node("b", "Neg", "a:y:0", **F)], "b:y:0")], "needs its own result"),
    "the main graph's cycle of controls": ([A, B, node("y", "AddV2", "a", "b", **F)], "y:0", [], "graph: node '.' needs its own result"),
    "the main graph's cycle that nothing needs": ([A, B, node("y", "Neg", "x", **F)], "y:0", [], "graph: node '.' needs its own result"),
    "a node that waits for itself": ([waiting(node("y", "Neg", "x", **F), "y")], "y:0", [], "node 'y' needs its own result"),
    "the main graph's two nodes of one name": ([node("y", "Neg", "x", **F)] * 2, "y:0", [], "two are named 'y'"),
    "an output that its node has not": ([node("y", "Neg", "x", **F)], "y:3", [], "output 'y' is 'y:3', but 'y' .Neg. has 1"),
    "an output that its call has not": (BODY_CALL, "call:1", [NEG], "output 'y' is 'call:1', but 'call'"),
    "an output as functions name them": ([node("y", "Neg", "x", **F)], "y:y:0", [], "expected one colon"),
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
def test_what_contradicts_itself_in_the_graph_or_a_function(tmp_path: Path, case: str) -> None:
    nodes, output, functions, error = BODIES[case]
    save(tmp_path, nodes, {"y": ("float32", output)}, functions)
    with pytest.raises(CorruptModelError, match=error) as caught:
        port_tower(read(tmp_path))
    assert str(tmp_path) in str(caught.value)
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the witness here")
    with pytest.raises((ValueError, KeyError, tf.errors.OpError)):
        tf.saved_model.load(str(tmp_path))


def test_the_table_is_that_of_tensorflow() -> None:
    matmul = definition("MatMul")
    assert matmul is not None
    assert [argument.name for argument in matmul.inputs] == ["a", "b"]
    assert matmul.attributes["T"].required
    assert not matmul.attributes["transpose_a"].required
    assert definition("TFText>WhitespaceTokenizeWithOffsetsV2") or definition("WhitespaceTokenizeWithOffsets")
    assert definition("NoSuchOp") is None


def refused_by_tensorflow(folder: Path) -> bool:
    """Whether TensorFlow refuses the graph, where it is here to be asked."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the witness here")
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # type: ignore[reportMissingImports]

    graph = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    try:
        with tf.Graph().as_default():
            tf.graph_util.import_graph_def(graph, name="")
    except (ValueError, tf.errors.OpError):
        return True
    return False
