"""The rows and the summary of the benchmark over all towers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.general import mean, summary
from benchmarks.produced import FAMILIES, HELD_OUT, Produced
from benchmarks.rows import drawn


def strings(*rows: bytes) -> object:
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def test_rows_are_python_data_and_the_same_each_time() -> None:
    pool = [
        {"word": strings(b"a", "é".encode()), "size": np.float32([1, 2]), "x": np.ones((2, 3)), "k": np.int32(7)},
        {"word": strings(b"\xff"), "size": np.float32([3]), "x": np.zeros((1, 3)), "k": np.int32(7)},
    ]
    found = drawn(pool, 50)
    assert set(found["word"]) == {"a", "é", b"\xff"}
    assert len(found["size"]) == 50 and all(type(size) is float for size in found["size"])
    assert found["x"].shape == (50, 3) and found["k"] == 7
    of_word = {"a": 1.0, "é": 2.0, b"\xff": 3.0}
    assert [of_word[word] for word in found["word"]] == found["size"]  # rows stay together
    assert drawn(pool, 50)["word"] == found["word"]


def test_ragged_rows_stay_whole() -> None:
    pool = [{"ids__values": np.int64([5, 6, 7]), "ids__offsets": np.int64([0, 2, 2, 3]), "age": np.float32([2, 0, 1])}]
    found = drawn(pool, 20)
    lengths = np.diff(found["ids__offsets"]).tolist()
    assert lengths == found["age"] and len(found["ids__values"]) == sum(lengths)


def cell(tower: str, ratio: float) -> dict[str, object]:
    return {"tower": tower, "family": Produced(tower, "").family, "rows": 32, "way": "call", "ratio": ratio, "ms": 1.0, "p99": 1.2,
            "tensorflow_ms": ratio}  # fmt: skip


def test_the_summary() -> None:
    lines = summary([cell("variables", 4.0), cell("tfrs ids", 1.0), cell("query_tower", 0.5)])
    assert mean([4.0, 1.0]) == pytest.approx(2.0)
    assert "| all | 3 | 1.26 | 33% | 33% | 1.2 |" in lines
    assert "| ids | 2.00 | query_tower | 0.50 |" in lines  # left out of its family's mean
    assert (
        next(line for line in lines if line.startswith("| query_tower |"))
        == "| query_tower | 32 | call | 0.50 | 1.000 | 0.500 |"
    )


def test_one_tower_of_each_family_is_left_out() -> None:
    assert {Produced(name, "").family for name in HELD_OUT} == set(FAMILIES)
