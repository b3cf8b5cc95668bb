"""How large a result will be, before it is computed: never less than it is, and unknown where a few bytes may stand for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion.folding import READ_LIMIT, size_of
from porting.conversion.values import Constant
from torch_towers import layers, ops
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.registry import OPS

assert layers and ops  # fill OPS


def constant(value: Any) -> Constant:
    return Constant(strings(value) if isinstance(value, list) else torch.as_tensor(value))


def bytes_of(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(bytes_of, value))
    if isinstance(value, np.ndarray):
        return sum(map(len, value.reshape(-1).tolist()))
    return value.numel() * value.element_size()


@pytest.mark.parametrize(
    ("op", "operands", "attrs"),
    [
        ("ragged_range", ([0.0, 5.0], [1000.0, 8.0], [1.0, 1.0]), {"dtype": "int64"}),
        ("ngrams_join", ([b"some", b"words", b"and", b"more"],), {"width": 3, "separator": b" -- "}),
        ("segment_reduce", ([1.0, 2.0, 3.0], [0, 4, 999]), {"reduction": "sum"}),
    ],
)
def test_a_bound_is_never_below_the_result(op: str, operands: tuple[Any, ...], attrs: dict[str, Any]) -> None:
    held = [constant(value if op == "ngrams_join" else np.array(value)) for value in operands]
    found = size_of(op, held, attrs, None)
    assert found is not None
    if op == "ragged_range":
        assert found >= bytes_of(OPS[op].function(*(item.array for item in held), **attrs))
    assert found < 1 << 20


def test_known_shapes_are_a_product() -> None:
    assert size_of("add", [constant(1.0)], {}, [("float32", (1000, 1000))]) == 4_000_000
    assert size_of("add", [constant(1.0)], {}, [("float64", (3,)), ("bool", (5,))]) == 29


@pytest.mark.parametrize("op", ["decode_image", "decompress", "parse_examples"])
def test_what_has_no_bound(op: str) -> None:
    assert size_of(op, [constant([b"x"])], {}, None) is None


def test_what_is_too_large_to_be_read() -> None:
    large = Constant(torch.zeros(1).expand(READ_LIMIT + 1))
    assert size_of("add", [large], {}, [("float32", (1,))]) is None
