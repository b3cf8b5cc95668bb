"""Inference of specs: the op itself on meta tensors, at two sets of sizes."""

from __future__ import annotations

import pytest
import torch

from porting.conversion.inference import SizeExpressions, equal_rows, infer
from porting.conversion.values import Constant, Value, constant
from torch_towers.graph.registry import OPS

FREE = SizeExpressions()


def value(name: str, *shape: int | str, dtype: str = "float32") -> Value:
    return Value(name, dtype, shape)


@pytest.mark.parametrize(
    "op, operands, attrs, expected",
    [
        ("matmul", [value("x", "batch", 8), constant(torch.ones(8, 16))], {}, [("float32", ("batch", 16))]),
        ("add", [value("x", "batch", 1), value("y", "length")], {}, [("float32", ("batch", "length"))]),
        ("transpose", [value("x", "a", "b", 3)], {"perm": (2, 0, 1)}, [("float32", (3, "a", "b"))]),
        ("concat", [value("x", "a"), value("y", "b")], {"axis": 0}, [("float32", (None,))]),  # a + b has no name
        ("equal", [value("x", "a", dtype="int64"), 1], {}, [("bool", ("a",))]),
        (
            "resize_nearest",
            [value("x", "a", 4, 4, 3), 6, 8],
            {"align_corners": False, "half_pixel_centers": True},
            [("float32", ("a", 6, 8, 3))],
        ),
        ("concat", [value("x", "a", "h", 3), value("y", "a", 5, 2)], {"axis": 2}, [("float32", ("a", 5, 5))]),
        ("add", [value("x", "a", "h", 3), value("y", 7, 1)], {}, [("float32", ("a", 7, 3))]),
        ("matmul", [value("x", "a", "k"), value("w", 25, 16)], {}, [("float32", ("a", 16))]),
        (
            "einsum",
            [value("x", "a", "b", "k"), value("w", 5, 2, 6)],
            {"equation": "abk,khd->abhd"},
            [("float32", ("a", "b", 2, 6))],
        ),
    ],
)
def test_a_size_that_follows_a_free_one_carries_its_name(op: str, operands: list, attrs: dict, expected: list) -> None:
    assert infer(OPS[op], operands, attrs, FREE) == expected


def test_strings_move_as_strings_and_hosts_ops_are_not_run() -> None:
    texts = value("x", "a", 2, dtype="string")
    assert infer(OPS["reshape"], [texts, -1], {}, FREE) == [("string", (None,))]
    assert infer(OPS["transpose"], [texts], {"perm": (1, 0)}, FREE) == [("string", (2, "a"))]
    assert infer(OPS["add"], [Value("x", "float32", None), 1.0], {}, FREE) is None


def test_a_computed_size_is_evaluated_from_the_free_ones() -> None:
    sizes = SizeExpressions()
    sizes.reads["n"] = "batch"
    sizes.computed["twice"] = ("size_mul", ("n", 2))
    sizes.computed["more"] = ("size_add", ("twice", "n"))
    assert sizes.leaves("more") == ["batch"]
    assert sizes.evaluate("more", {"batch": 5}) == 15
    rows = infer(OPS["reshape"], [value("x", "batch", 6), Value("twice", "size", ()), 3], {}, sizes)
    assert rows == [("float32", ("twice", 3))]


def test_rows_that_must_be_equal_are_found() -> None:
    x, y = value("x", "a", 4), value("y", "b", 4)
    result = value("z", "?1", 8)
    assert equal_rows(OPS["concat"], [x, y], {"axis": 1}, result, FREE) == [("a", "b"), ("a", "?1")]
    assert equal_rows(OPS["concat"], [x, y], {"axis": 0}, value("z", "?1", 4), FREE) == []
    assert equal_rows(OPS["add"], [x, Constant(torch.ones(4))], {}, result, FREE) == []
