"""Where, unique, partition and stitch against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.witness import Case, as_array, case, check_case, check_function, run, tf
from torch_towers.errors import InputError

NAN = np.float32("nan")
FLOATS = np.array([3, NAN, 3, NAN, -0.0, 0.0, np.inf], np.float32)
STRINGS = as_array([b"b", b"", b"a\0", b"b", b"a", b"\xff", b""])
GRID = np.array([[3, 1], [3, 2], [3, 1], [0, 1]])


def where_cases() -> list[Case]:
    grids: list[Any] = [np.array([[True, False], [True, True]]), FLOATS, GRID.astype(np.int32), np.zeros((0, 2), bool),
                        np.zeros((2, 3, 1), np.float64), GRID.astype(np.uint8)]  # fmt: skip
    return [case("Where", condition=grid, label=f"{grid.dtype}{grid.shape}") for grid in grids]


def unique_cases() -> list[Case]:
    rows: list[Case] = []
    axes = [np.array([], np.int64), np.array([0], np.int64), np.array([1], np.int32), np.array([-1], np.int64)]
    for dtype in (tf.int32, tf.int64):
        attrs = {"out_idx": dtype}
        for x in (
            FLOATS,
            STRINGS,
            GRID.reshape(-1),
            GRID.reshape(-1).astype(np.int8),
            FLOATS[:0],
            STRINGS[:0],
            np.array([True, False, True]),
        ):
            rows.append(case("Unique", x=x, attrs=attrs, label=f"{x.dtype}[{x.size}] {dtype.name}"))
            rows.append(case("UniqueWithCounts", x=x, attrs=attrs, label=f"{x.dtype}[{x.size}] {dtype.name}"))
        for axis in axes:
            x = GRID if axis.size else STRINGS
            rows.append(case("UniqueV2", "axis", x=x, axis=axis, attrs=attrs))
            rows.append(case("UniqueWithCountsV2", "axis", x=x, axis=axis, attrs=attrs))
    rows.append(case("UniqueWithCountsV2", "axis", x=GRID.reshape(4, 1, 2).astype(np.float32), axis=axes[1]))
    return rows


def difference_cases() -> list[Case]:
    rows: list[Case] = []
    for dtype in (tf.int32, tf.int64):
        rows += [
            case("ListDiff", x=x, y=y, attrs={"out_idx": dtype}, label=f"{x.dtype}[{x.size}]")
            for x, y in (
                (FLOATS, np.array([0.0, 3, NAN], np.float32)),
                (STRINGS, as_array([b"a", b"", b"z"])),
                (GRID.reshape(-1), np.array([1, 7])),
                (GRID.reshape(-1).astype(np.uint16), np.array([1, 65535], np.uint16)),
                (GRID.reshape(-1).astype(np.int8), np.array([3], np.int8)),
                (FLOATS.astype(np.float16), np.array([3], np.float16)),
                (FLOATS.astype(np.float64), np.zeros(0)),
                (FLOATS[:0], FLOATS),
            )
        ]
    rows.append(case("ListDiff", "x", "y", x=np.arange(4), y=np.array([2, 0]), label="constants"))
    return rows


def stitch_cases() -> list[Case]:
    parts = np.array([0, 2, 1, 0, 2, 0, 0], np.int32)
    rows = [
        case("DynamicPartition", data=FLOATS, partitions=parts, attrs={"num_partitions": 4}),
        case("DynamicPartition", data=STRINGS, partitions=parts, attrs={"num_partitions": 3}),
        case("DynamicPartition", data=STRINGS, partitions=np.zeros(7, np.int32), attrs={"num_partitions": 1}),
        case(
            "DynamicPartition",
            data=GRID.reshape(2, 2, 2),
            partitions=parts[:4].reshape(2, 2),
            attrs={"num_partitions": 3},
        ),
        case("DynamicPartition", data=GRID[:0], partitions=parts[:0], attrs={"num_partitions": 2}),
    ]
    index = (np.array([3, 0], np.int32), np.array([[1, 0]], np.int32))
    for op in ("DynamicStitch", "ParallelDynamicStitch"):
        rows += [
            case(
                op,
                indices=index,
                data=(GRID[:2].astype(np.float32), GRID[:2].reshape(1, 2, 2).astype(np.float32)),
                batched=False,
            ),
            case(op, indices=index, data=(STRINGS[:2], STRINGS[2:4].reshape(1, 2)), batched=False, label="strings"),
            case(op, indices=(index[0][:0],), data=(GRID[:0],), batched=False, label="empty"),
        ]
        rows.append(
            case(
                op,
                indices=(index[0], np.array([1, 2], np.int32)),
                data=(FLOATS[:2], FLOATS[4:6]),
                batched=False,
                label="merge",
            )
        )
    return rows


CASES: list[Case] = where_cases() + unique_cases() + difference_cases() + stitch_cases()


@pytest.mark.parametrize("row", CASES, ids=str)
def test_case(row: Case) -> None:
    check_case(row)


def test_partitions_that_do_not_exist_are_refused() -> None:
    program = check_function(
        lambda x, p: tf.dynamic_partition(x, p, 2), [{"x": STRINGS[:2], "p": np.array([0, 1], np.int32)}]
    )
    for bad in (2, -1):
        with pytest.raises(InputError, match="not in"):
            run(program, {"x": STRINGS[:2], "p": np.array([0, bad], np.int32)})


def test_negative_places_are_refused() -> None:
    program = check_function(
        lambda i, x: tf.dynamic_stitch([i], [x]), [{"i": np.array([1, 0], np.int32), "x": FLOATS[:2]}]
    )
    with pytest.raises(InputError, match="negative"):
        run(program, {"i": np.array([1, -1], np.int32), "x": FLOATS[:2]})
