"""The emitter: constant folding, deduplication, and shapes with named dynamic sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion import folding
from porting.conversion.emitter import Emitter
from porting.conversion.values import Constant, Sizes, Value, constant
from porting.errors import PortingError
from torch_towers.graph.graph import TensorSpec
from torch_towers.program.program import Program


def emitter(**shapes: tuple[int | None, ...]) -> tuple[Any, ...]:
    specs = [TensorSpec(name, "float32", shape) for name, shape in shapes.items()]
    t = Emitter(specs)
    return t, *(t.value(spec.name, spec.dtype, spec.shape) for spec in specs)


def ops(t: Emitter, **outputs: Any) -> list[str]:
    return [node.op for node in t.graph(outputs).nodes]


def test_constants_fold_with_the_op_itself() -> None:
    (t,) = emitter()
    found = t.add(constant(np.float32([1, 2])), constant(np.float32(0.5)))
    assert isinstance(found, Constant)
    assert found.python() == [1.5, 2.5]
    assert t.nodes == []


COUNT = folding.LIMIT // 4  # floats


def test_large_constants_do_not_fold() -> None:
    (t,) = emitter()
    one = constant(torch.ones(()))
    small = t.broadcast_to(one, COUNT)
    large = t.broadcast_to(one, COUNT + 1)
    assert isinstance(small, Constant)
    assert isinstance(large, Value)
    assert large.shape == (COUNT + 1,)


def test_checks_never_fold_and_stay_without_users() -> None:
    t, x = emitter(x=(None,))
    t.check(constant(np.array(True)), message="no")
    assert ops(t, y=t.neg(x)) == ["check", "neg"]


def test_equal_nodes_are_written_once() -> None:
    t, x = emitter(x=(None, 4))
    assert t.add(t.neg(x), 1.0) is t.add(t.neg(x), 1.0)
    assert ops(t, y=t.add(t.neg(x), 1.0)) == ["neg", "add"]


LITERALS = [1, 1.0, True, 0.0, -0.0, 0, False]


def test_literals_that_python_calls_equal_are_not() -> None:
    t, x = emitter(x=(None,))
    refs = {t.mul(x, literal).ref for literal in LITERALS}
    assert len(refs) == len(LITERALS)
    found = Program(t.graph({"zero": t.mul(x, 0.0), "minus": t.mul(x, -0.0)}), t.store)(x=torch.tensor([1.0]))
    assert not torch.signbit(found["zero"])
    assert torch.signbit(found["minus"])


def test_attributes_that_python_calls_equal_are_not() -> None:
    t, x = emitter(x=(None,))
    assert t.leaky_relu(x, alpha=0.0).ref != t.leaky_relu(x, alpha=-0.0).ref


def test_scalars_are_literals_where_the_op_takes_them() -> None:
    t, x = emitter(x=(None,))
    y = t.add(x, constant(np.float32(2.5)))
    assert t.nodes[-1].inputs == ("x", 2.5)
    assert t.store == {}
    t.add(y, constant(np.float32([2.5])))
    assert [value.tolist() for value in t.store.values()] == [[2.5]]


def test_shapes_carry_the_names_of_free_sizes() -> None:
    t, x, y = emitter(x=(None, 4), y=(None, 6))
    batch, other = x.shape[0], y.shape[0]
    assert batch != other
    assert t.matmul(x, t.parameter("w", "float32", (4, 3))).shape == (batch, 3)
    assert t.transpose(x, perm=(1, 0)).shape == (4, batch)
    assert t.concat(x, y, axis=1).shape[1] == 10
    assert t.equal(x, x).dtype == "bool"
    doubled = t.concat(x, x, axis=0).shape
    assert doubled[1] == 4
    assert doubled[0] not in (batch, other)  # neither of them: a size of its own


def test_a_size_of_a_product_is_computed() -> None:
    t, x = emitter(x=(None, None, 4))
    rows = t.size_mul(*t.sizes(x)[:2])
    flat = t.reshape(x, rows, 4)
    assert flat.shape == (rows.ref, 4)
    assert t.sizes(flat)[0] is rows
    assert t.reshape(flat, *t.sizes(x)[:2], 4).shape == x.shape


def test_long_and_shared_size_arithmetic() -> None:
    """5,000 steps do not recurse, and `n + n` thirty times over is not counted a billion times."""
    t, x = emitter(x=(None,))
    (n,) = t.sizes(x)
    for _ in range(30):
        n = t.size_sub(t.size_add(n, n), n)
    for _ in range(5000):
        n = t.size_add(n, 0)
    assert t.reshape(x, n, 1).shape == (x.shape[0], 1)


def test_nothing_known_where_the_rank_is_free() -> None:
    t = Emitter([TensorSpec("x", "float32", None)])
    assert t.neg(t.value("x", "float32", None)).shape is None


def test_sizes_as_tensors() -> None:
    t, x = emitter(x=(None, 4))
    (n, _) = t.sizes(x)
    fixed = Sizes(np.array([2, 3], object), "int64")
    assert t.tensor(fixed).array.dtype == torch.int64
    free = np.empty(2, object)
    free[:] = [n, 4]
    graph = t.graph({"y": t.tensor(Sizes(free, "int32"))})
    found = Program(graph, t.store)(x=torch.zeros(7, 4))["y"]
    assert found.dtype == torch.int32
    assert found.tolist() == [7, 4]


def test_what_no_output_needs_is_left_out() -> None:
    t, x = emitter(x=(None,))
    t.exp(x)
    assert ops(t, y=t.neg(x)) == ["neg"]


def test_wrong_use_is_an_error() -> None:
    t, x = emitter(x=(None,))
    with pytest.raises(AttributeError, match="no op 'nonsense'"):
        t.nonsense(x)
    with pytest.raises(PortingError, match="cannot be the operand of an op"):
        t.add(x, object())
