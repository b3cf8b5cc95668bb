"""The row splits that ops and layers give are what the table says: from 0, ascending, and of the lengths it names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from porting.lifting.integers import PARTITIONS, Partition
from torch_towers.graph.registry import MODULES, OPS
from torch_towers.ops.strings import strings

TEXTS = [[], [""], ["a b", "", "größe, 東京 x!"], ["", "  "], ["one two"]]


def given(name: str, texts: list[str]) -> tuple[Any, ...]:
    """The operands of an op or layer that splits these texts."""
    batch = strings([text.encode() for text in texts], (len(texts),))
    if name in ("unicode_script_tokenize", "whitespace_tokenize_codepoints"):
        splits, codes, *_ = OPS["unicode_decode"].function(batch, input_encoding="UTF-8")
        return codes, splits
    return (batch,)


TOKENIZERS = (
    "unicode_decode",
    "unicode_script_tokenize",
    "whitespace_tokenize_codepoints",
    "regex_split_with_offsets",
    "byte_split",
)
ATTRS: dict[str, dict[str, Any]] = {
    "unicode_decode": {"input_encoding": "UTF-8", "offsets": True},
    "regex_split_with_offsets": {"delimiter": rb"(\s)", "keep": rb""},
}


@pytest.mark.parametrize("texts", TEXTS, ids=str)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_splits_of_texts(name: str, texts: list[str]) -> None:
    operands = given(name, texts)
    results = OPS[name].function(*operands, **ATTRS.get(name, {}))
    for partition in PARTITIONS[name]:
        _assert_parts(partition, operands, results)


@pytest.mark.parametrize("limits", [[], [0], [2, 0, 3], [-1, 1]], ids=str)
def test_splits_of_ranges(limits: list[int]) -> None:
    operands = torch.tensor(0), torch.tensor(limits, dtype=torch.int64), torch.tensor(1)
    (partition,) = PARTITIONS["ragged_range"]
    _assert_parts(partition, operands, OPS["ragged_range"].function(*operands, dtype="int64"))


def test_all_are_ops_or_layers() -> None:
    assert PARTITIONS.keys() <= OPS.keys() | MODULES.keys()


def _assert_parts(partition: Partition, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
    splits = results[partition.splits]
    assert isinstance(splits, Tensor) and splits[0] == 0 and bool((splits.diff() >= 0).all())
    for result, more in partition.parts:
        assert splits[-1] == len(results[result]) + more, result
    if partition.rows is not None:
        operand, more = partition.rows
        assert len(splits) == len(operands[operand]) + more
    assert np.all(splits.numpy() >= 0)
