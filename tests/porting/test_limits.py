"""What TensorFlow refuses when it runs, and what would take gigabytes there: refused at port time where constants say it, else in one sentence."""

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
        with pytest.raises(InputError, match="more than the 16777216"):
            list_reserve(size)
        with pytest.raises(InputError, match="more than the 16777216"):
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
