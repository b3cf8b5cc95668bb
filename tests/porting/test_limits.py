"""Inputs that TensorFlow refuses, or that would take gigabytes: refused at port time if constant, else at run time in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import read
from porting.tower import port_tower
from tests.porting.graphs import const, node, save
from torch_towers import InputError, at_most_steps
from torch_towers.ops.lists import list_reserve, list_resize
from torch_towers.ops.strings import reduce_join, string_join

F = {"T": "float32"}
REFUSED: dict[str, tuple[list[Any], str]] = {
    "Pad": ([const("p", np.int32([[0, -1]])), node("y", "Pad", "x", "p", Tpaddings="int32", **F)], "must be non-negative, and one is -1"),
    "MatrixBandPart": (
        [const("m", np.ones((2, 3), np.float32)), const("l", np.int64(3)), const("u", np.int64(0)), node("b", "MatrixBandPart", "m", "l", "u", Tindex="int64", **F),
         const("zero", np.int32([0, 1])), node("s", "Sum", "b", "zero", Tidx="int32", **F), node("y", "AddV2", "x", "s", **F)],
        "num_lower must be negative or at most 2, and is 3"),
    "ConcatV2": ([const("a", np.int32(1)), node("y", "ConcatV2", "x", "x", "a", N=2, Tidx="int32", **F)], "concat_dim 1 is out of range"),
    "TensorListResize": (
        [const("shape", np.int32([])), const("n", np.int32(2)), const("less", np.int32(-3)),
         node("l", "TensorListReserve", "shape", "n", element_dtype="float32", shape_type="int32"), node("r", "TensorListResize", "l", "less"),
         node("length", "TensorListLength", "r"), node("f", "Cast", "length", SrcT="int32", DstT="float32"), node("y", "AddV2", "x", "f", **F)],
        "expects size to be non-negative"),
    **{f"{op} of an axis that there is not": ([const("a", np.int32(9)), *nodes], "Dimension out of range|out of range") for op, nodes in {
        "GatherV2": [const("i", np.int32([0])), node("y", "GatherV2", "x", "i", "a", Tparams="float32", Tindices="int32", Taxis="int32")],
        "ArgMax": [node("m", "ArgMax", "x", "a", Tidx="int32", output_type="int64", **F), node("y", "Cast", "m", SrcT="int64", DstT="float32")],
        "Pack": [node("y", "Pack", "x", "x", N=2, axis=9, **F)],
        "Unpack": [node("y", "Unpack", "x", num=2, axis=9, **F)],
        "Split": [node("y", "Split", "a", "x", num_split=2, **F)],
        "Cumsum": [node("y", "Cumsum", "x", "a", Tidx="int32", **F)],
        "Squeeze": [node("y", "Squeeze", "x", squeeze_dims=[9], **F)],
        "ExpandDims": [node("y", "ExpandDims", "x", "a", Tdim="int32", **F)],
        "Sum": [node("y", "Sum", "x", "a", Tidx="int32", **F)],
        "Roll": [const("s", np.int32(1)), node("y", "Roll", "x", "s", "a", Tshift="int32", Taxis="int32", **F)],
        "OneHot": [const("d", np.int32(3)), const("on", np.float32(1)), const("of", np.float32(0)), const("i", np.int32([0])), node("y", "OneHot", "i", "d", "on", "of", axis=9, TI="int32", **F)],
    }.items()},
    "TopKV2": ([const("k", np.int32(-2)), const("c", np.ones((2, 3), np.float32)), node("y", "TopKV2", "c", "k", Tk="int32", **F)], "Need k >= 0, got -2"),
    "Bucketize": ([node("m", "Bucketize", "x", boundaries=[3.0, 1.0], **F), node("y", "Cast", "m", SrcT="int32", DstT="float32")], "Expected sorted boundaries"),
    "FakeQuant of 2^31 bits": ([node("y", "FakeQuantWithMinMaxArgs", "x", num_bits=1 << 31)], "num_bits must be between 2 and 16"),
    "QuantizeAndDequantizeV2 of 2^31 bits": (
        [const("l", np.float32(0)), const("h", np.float32(1)), node("y", "QuantizeAndDequantizeV2", "x", "l", "h", num_bits=1 << 31, **F)], "num_bits must be between 2 and 61"),
    "a key of three integers": (
        [const("w", np.array([b"a"], object)), node("h", "StringToHashBucketStrong", "w", num_buckets=3, key=[1, 2, 3]), node("y", "Cast", "h", SrcT="int64", DstT="float32")],
        "Key must have 2 elements"),
}  # fmt: skip


@pytest.mark.parametrize("op", REFUSED)
def test_constants_that_tensorflow_refuses_when_it_runs(tmp_path: Path, op: str) -> None:
    nodes, error = REFUSED[op]
    save(tmp_path, nodes, {"y": ("float32", "y:0")})
    with pytest.raises(PortingError, match=error) as caught:
        port_tower(read(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_an_error_that_no_check_foresaw_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, [node("y", "Neg", "x", **F)], {"y": ("float32", "y:0")})
    model = read(tmp_path)

    def broken(*given: Any) -> Any:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr("porting.tower.flatten_whole", broken)
    with pytest.raises(CorruptModelError, match=r"cannot be ported .IndexError: tuple index") as caught:
        port_tower(model)
    assert str(tmp_path) in str(caught.value)


def test_lists_and_strings_have_a_largest_size() -> None:
    for size in (1 << 25, 1 << 40):
        with pytest.raises(InputError, match="more than the limit of 16777216"):
            list_reserve(size)
        with pytest.raises(InputError, match="more than the limit of 16777216"):
            list_resize([], size)
    text = np.array([b"x" * (1 << 20)] * 65, object)
    with pytest.raises(InputError, match="a joined string has 68157440 bytes"):
        reduce_join(text, axes=(0,))
    with pytest.raises(InputError, match="a joined string has 68157440 bytes"):
        string_join(*(text[i : i + 1] for i in range(65)))


def test_a_run_may_have_a_limit_of_steps(tmp_path: Path) -> None:
    from tests.porting.graphs import Call, function

    zero = const("zero", np.int32(0))
    total = node("sum", "Sum", "x", "zero:output:0", Tidx="int32", **F)
    positive = function(
        "positive", [zero, total, node("b", "Cast", "sum:output:0", SrcT="float32", DstT="bool")], "b:y:0"
    )
    positive.signature.output_arg[0].type = 10
    loop = node("y", "While", "x", cond=Call("positive"), body=Call("body"), T=["float32"])
    save(
        tmp_path,
        [loop],
        {"y": ("float32", "y:0")},
        [positive, function("body", [node("neg", "Neg", "x", **F)], "neg:y:0")],
    )
    tower = port_tower(read(tmp_path)).tower()
    assert tower({"x": np.float32([0])})["y"].tolist() == [0]
    with at_most_steps(100), pytest.raises(InputError, match="more than 100 steps"):
        tower({"x": np.float32([1])})
