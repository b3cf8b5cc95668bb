"""A kernel's error in TensorFlow's sentence, with the node that it is about. `tests/porting/test_run_time_refusals.py` asks TensorFlow."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torch_towers.errors import InputError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.graph.spec import TowerSpec
from torch_towers.program.program import Program
from torch_towers.program.refusals import KERNEL_ERRORS, refusal
from torch_towers.tower import Tower


def said(op: str, *operands: torch.Tensor, literals: tuple[Any, ...] = (), **attrs: Any) -> str:
    """Why `op` cannot be run on the operands."""
    specs = tuple(TensorSpec(f"x{i}", "float32", None) for i in range(len(operands)))
    names = tuple(spec.name for spec in specs)
    node = Node("dense.op", op, (*names, *literals), attrs)
    program = Program(Graph(specs, (Node("before", "identity", ("x0",)), node), {"out": "dense.op"}), {})
    given = dict(zip(names, operands, strict=True))
    with pytest.raises(KERNEL_ERRORS) as caught:
        program(**given)
    return refusal(program, given, caught.value)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (lambda: said("matmul", zeros(2, 3), zeros(4, 5)), "Matrix size-incompatible: In[0]: [2,3], In[1]: [4,5]"),
        (lambda: said("mul", zeros(2, 3), zeros(4)), "Incompatible shapes: [2,3] vs. [4]"),
        (lambda: said("concat", zeros(2, 3), zeros(4, 3), axis=1), "Dimension 0 in both shapes must be equal"),
        (lambda: said("concat", zeros(2, 3), zeros(4), axis=0), "Ranks of all input tensors should match"),
        (lambda: said("stack", zeros(2), zeros(3), axis=0), "values[0].shape = [2] != values[1].shape = [3]"),
    ],
)
def test_tensorflows_sentences(found: Any, sentence: str) -> None:
    text = found()
    assert sentence in text
    assert "'dense.op': " in text  # the node that fails, not the one before it


def test_a_checks_own_sentence_stays() -> None:
    assert refusal(Program(Graph((), (), {}), {}), {}, InputError("must be positive")) == "must be positive"


def test_no_memory() -> None:
    program = Program(Graph((), (), {}), {})
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        assert refusal(program, {}, error) == "there is not enough memory"


def test_results_of_different_lengths() -> None:
    spec = TensorSpec("x", "float32", None)
    program = Program(Graph((spec,), (Node("y", "neg", ("x",)),), {"out": "y"}), {})
    assert refusal(program, {"x": zeros(1)}, ValueError("?")) == "its results have different lengths"


ODD: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "concat": ((), {"axis": 0}),
    "concat of an axis too many": (("x", "x"), {"axis": 7}),
    "stack": ((), {"axis": 0}),
    "tile": (("x", "x"), {}),
    "broadcast_to": (("x", "x"), {}),
    "matmul": ((1.0, "x"), {}),
}


@pytest.mark.parametrize("case", ODD)
def test_operands_that_are_none_of_the_usual_mistakes(case: str) -> None:
    inputs, attrs = ODD[case]
    x = TensorSpec("x", "float32", ("batch", 4))
    node = Node("y", case.partition(" ")[0], inputs, attrs)
    spec = TowerSpec(
        Graph((x,), (), {"x": "x"}), Graph((x,), (node,), {"y": "y"}), None, (x,), (TensorSpec("y", "float32", None),)
    )
    with pytest.raises(InputError, match="'y'"):
        Tower(spec, {})({"x": torch.full((2, 4), 1.5)})
