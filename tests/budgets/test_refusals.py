"""What TensorFlow refuses, each within 20 seconds of the processor and 300 MB: through the port and a call, in one process."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.saved_model import protos
from tests.fuzz.harness import outcomes
from tests.porting.graphs import const, node, save
from tests.porting.saved_model.test_node_checks import AXIS, BODIES, NEG, WRONG
from tests.porting.test_limits import REFUSED

TOKENS = [const("c", np.array([b"a", b"b"], object)), const("s", np.int64([0, 2]))]


COUNTED = [
    const("splits", np.int64([0, 1 << 28])), const("values", np.int64([1, 2])), const("weights", np.zeros(0, np.float32)),
    node("y", "RaggedCountSparseOutput", "splits", "values", "weights", T="int64", output_type="float32", binary_output=False),
]  # fmt: skip


def _grams(pad_width: int) -> list[Any]:
    grams = node(
        "g", "StringNGrams", "c", "s", separator=b"", ngram_widths=[2], left_pad=b"p", right_pad=b"p", pad_width=pad_width,
        preserve_short_sequences=False, Tsplits="int64",
    )  # fmt: skip
    return [*TOKENS, grams, node("y", "StringToHashBucketFast", "g", num_buckets=3)]


def _model(nodes: list[Any], output: str = "y:0", functions: Any = (), dtype: str = "float32") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), nodes, {"y": (dtype, output)}, functions)
        return (Path(folder) / "saved_model.pb").read_bytes()


def _of_no_dtype(data: bytes) -> bytes:
    """The same, with inputs of no dtype."""
    message = protos.parse("SavedModel", data, "")
    for signature in message.meta_graphs[0].signature_def.values():
        for info in signature.inputs.values():
            info.dtype = 0
    return message.SerializeToString(deterministic=True)


CASES: dict[str, tuple[bytes, str]] = {
    **{f"constants: {name}": (_model(nodes), said) for name, (nodes, said) in REFUSED.items()},
    **{
        f"definitions: {name}": (
            _model([*([AXIS] if name.startswith("an encoding") else []), *nodes], functions=[NEG]),
            said,
        )
        for name, (nodes, said) in WRONG.items()
    },
    **{
        f"bodies: {name}": (_model(nodes, output, functions), said)
        for name, (nodes, output, functions, said) in BODIES.items()
    },
    "row splits that promise 2^28 values": (_model(COUNTED, "y:1"), "row splits must start with 0"),
    "an input of no dtype": (_of_no_dtype(_model([node("y", "Neg", "x", T="float32")])), "is of the dtype 'invalid'"),
    "StringNGrams: pad_width 2^31": (_model(_grams(1 << 31), dtype="int64"), "answered|expected|pad_width"),
}


@functools.cache
def found() -> dict[str, str]:
    return outcomes("tests.fuzz.test_ops", {name: data for name, (data, _) in CASES.items()})


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_costs_little(case: str) -> None:
    said = found().get(case, "the process ended")
    assert re.match("(?s)(answered|refused: ).*", said), said
    assert re.search(CASES[case][1], said), said
