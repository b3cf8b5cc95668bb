"""A converter without a conformance case does not pass, nor does an attribute that no case varies."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from porting.converters.random import SAMPLES  # refused whatever their operands: tests/porting/test_dropout.py
from porting.registry import CONVERTERS
from tests.porting import converters
from tests.witness import Case

IMPLIED = frozenset(
    {
        "N", "Nsparse", "num_row_partition_tensors", "PARAMS_RAGGED_RANK", "ragged_values_types", "ragged_splits_types",
        "SrcT", "Tout", "Tsplits",
    }
)  # fmt: skip
"""Attributes that `tf.raw_ops` takes from its operands: their number, ranks and dtypes, which the cases do vary."""
NOT_VARIED = {
    "bad_indices_policy": "one value is taken and every other refused",
    "data_format": "TensorFlow's CPU has no channels-first kernels: test_conv.test_channels_first compares four ops with the same "
    "layers run its way, and the others share their code",
    "explicit_paddings": "TensorFlow's CPU has none for the ops whose cases lack it; the depthwise one is in test_channels_first",
    "dilations": "TensorFlow's CPU has none for transposed convolutions of three dimensions",
    "no_nan": "the porter's own, of which TensorFlow's ops know nothing: tests/porting/served/test_onednn.py compares with its fused ops",
    "squeeze_dims": "tf.raw_ops calls it `axis`, under which the cases vary it",
}
"""Attributes that some op has no case for, and why."""


def modules() -> Iterator[ModuleType]:
    for file in pkgutil.iter_modules(converters.__path__):
        if file.name.startswith("test_") and file.name != "test_coverage":
            yield importlib.import_module(f"{converters.__name__}.{file.name}")


def cases() -> list[Case]:
    return [row for module in modules() for row in getattr(module, "CASES", ())]


def test_every_op_has_a_case() -> None:
    covered = {row.op for row in cases()} | {op for module in modules() for op in getattr(module, "COVERED", ())}
    assert set(CONVERTERS) - covered - set(SAMPLES) == set()


def test_every_attribute_is_varied_in_a_case() -> None:
    varied = {(row.op, name) for row in cases() for name in (*row.attrs, *row.operands)}
    covered = {op for module in modules() for op in getattr(module, "COVERED", ())}
    missing = [
        f"{op}: {parameter.name}"
        for op, entry in CONVERTERS.items()
        for parameter in entry.signature.parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and op not in covered and (op, parameter.name) not in varied
        if parameter.name not in IMPLIED | NOT_VARIED.keys()
    ]
    assert missing == []
