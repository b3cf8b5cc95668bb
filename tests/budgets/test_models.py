"""Folders of SavedModels that cost more than they weigh or contradict themselves: through the port, a save, a load and a call."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.budgets import model_folder
from tests.budgets.model_folder import entry, with_strings, with_variables, with_vocabulary
from tests.fuzz.harness import outcomes

MB = 1 << 20
FLOATS = np.arange(6, dtype="<f4").tobytes()


def _variable(graph: dict[str, Any] | None = None, **stored: Any) -> Callable[[], bytes]:
    return lambda: with_variables({b"v": entry(FLOATS, **stored)}, FLOATS, **(graph or {}))


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a variable": (_variable(), "answered"),
    "a variable of a size that the graph leaves open": (_variable({"shape": (-1, 3)}), "answered"),
    "another shape in the graph": (_variable({"shape": (3, 2)}), r"\[3, 2\] in the graph and float32 \[2, 3\] in the checkpoint"),
    "another rank in the graph": (_variable({"shape": (6,)}), r"\[6\] in the graph and float32 \[2, 3\] in the checkpoint"),
    "2^60 elements in the graph": (_variable({"shape": (1 << 40, 1 << 20)}), r"in the graph and float32 \[2, 3\] in the checkpoint"),
    "another dtype in the graph": (_variable({"dtype": "int32"}), r"int32 \[2, 3\] in the graph and float32 \[2, 3\]"),
    "another dtype where it is read": (_variable({"read_as": "int32"}), "'r' reads the variable 'v' as int32, and it is float32"),
    "another shape in the checkpoint": (_variable(shape=(3, 2)), r"\[2, 3\] in the graph and float32 \[3, 2\] in the checkpoint"),
    "another dtype in the checkpoint": (_variable(dtype=3), r"float32 \[2, 3\] in the graph and int32 \[2, 3\]"),
    "2^40 elements in the checkpoint": (_variable(shape=(1 << 40,)), "24 bytes, expected 4398046511104"),
    "2^64 elements in the checkpoint": (_variable(shape=(1 << 62, 4)), r"expected fewer than 2\*\*63 elements"),
    "a negative size in the checkpoint": (_variable(shape=(-2, -3)), "expected sizes of 0 or more"),
    "a variable that the checkpoint lacks": (lambda: with_variables({b"w": entry(FLOATS)}, FLOATS), "'v' is not in the checkpoint"),
    "12 MB of empty strings": (lambda: with_strings(np.zeros(12 * MB, np.uint8), b""), "answered"),
    "12 MB of strings of one byte": (lambda: with_strings(np.ones(6 * MB, np.uint8), b"x" * (6 * MB)), "answered"),
    "a string of 12 MB": (lambda: with_strings(np.array([12 * MB]), b"x" * (12 * MB)), "answered"),
    "12 MB of empty strings of another checksum": (lambda: with_strings(np.zeros(12 * MB, np.uint8), b"", 1), "checksum .* the data are damaged"),
    "12 MB of strings longer than the file": (lambda: with_strings(np.full(12 * MB, 127, np.uint8), b""), "its strings need"),
    "a vocabulary line of 100 MB": (lambda: with_vocabulary(b"x" * (100 * MB)), "answered"),
    "a vocabulary line of 6 MB of controls": (lambda: with_vocabulary(b"\0" * (6 * MB)), "answered"),
    "a vocabulary line of 6 MB that is not UTF-8": (lambda: with_vocabulary(b"\xff" * (6 * MB)), "answered"),
    "a vocabulary line of 6 MB of backslashes": (lambda: with_vocabulary(b"\\" * (6 * MB)), "answered"),
    "12 MB of empty vocabulary lines": (lambda: with_vocabulary(b"\n" * (12 * MB)), "line 1 is empty"),
    "12 MB of vocabulary lines of one byte": (lambda: with_vocabulary(b"x\r\n" * (5 * MB)), "key b'x' has value"),
    "a vocabulary line of 12 MB of columns": (lambda: with_vocabulary(b"x" + b"\t" * (12 * MB), 0), "answered"),
    "a column that there is not": (lambda: with_vocabulary(b"x" + b"\t" * (12 * MB), (1 << 63) - 1), "has 12582913 columns, expected more"),
    "a number of 12 MB of digits": (lambda: with_vocabulary(b"9" * (12 * MB), key_dtype="int64"), "not a valid int64"),
    "fewer lines than 2^62": (lambda: with_vocabulary(b"x\n", vocab_size=1 << 62), "1 lines, expected 4611686018427387904"),
    "keys of another dtype": (lambda: with_vocabulary(b"1\n2\n", asked="int64"), "keys of int64, and those of table 'words' are string"),
    "values of another dtype": (lambda: with_vocabulary(b"1\n2\n", default=np.float32(0)), "values of float32, and those of table 'words' are int64"),
}  # fmt: skip


@functools.cache
def found() -> dict[str, str]:
    return outcomes(model_folder.__name__, {name: make() for name, (make, _) in CASES.items()})


@pytest.mark.parametrize("case", CASES)
def test_a_model_costs_no_more_than_it_weighs(case: str) -> None:
    said = found().get(case, "the process ended")
    assert re.match("answered|refused: ", said), said
    assert re.search(CASES[case][1], said), said
