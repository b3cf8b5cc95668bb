"""Trimmers, n-grams and bytes of TensorFlow Text, and whole preprocessing functions, against TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.porting.converters.test_text import TEXTS, kernels, text
from tests.saved import check_saved
from tests.witness import as_array, assert_equal, check_function, port, tf, to_numpy, trace
from torch_towers.errors import InputError
from torch_towers.graph.registry import OPS

COVERED = {
    "TFText>RoundRobinGenerateMasks", "TFText>RoundRobinTrim", "TFText>NgramsStringJoin", "TFText>ByteSplitWithOffsets",
    "TFText>ByteSplitByOffsets", "TFText>Utf8Binarize",
}  # fmt: skip


def segments(count: int, kind: str, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for index in range(count):
        lengths = generator.integers(0, 9, 20)
        values = generator.integers(0, 100, lengths.sum())
        feeds[f"values_{index}"] = (
            as_array([f"w{value}" for value in values]) if kind == "string" else values.astype(kind)
        )
        feeds[f"splits_{index}"] = np.cumsum([0, *lengths]).astype(np.int32 if seed % 2 else np.int64)
    return feeds


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("limit", [-1, 0, 1, 7, 11, 100])
def test_round_robin(count: int, limit: int) -> None:
    raw = kernels("trimmer_ops")
    kind = ("int64", "int32", "string", "float32")[limit % 4]

    def trim(**feeds: Any) -> list[Any]:
        values = [feeds[f"values_{index}"] for index in range(count)]
        splits = [feeds[f"splits_{index}"] for index in range(count)]
        kept = raw.tf_text_round_robin_trim(limit, values, splits)
        return [*kept.values, *kept.row_splits, *raw.tf_text_round_robin_generate_masks(limit, values, splits)]

    check_function(trim, [segments(count, kind, count), segments(count, kind, count + 2)])


@pytest.mark.parametrize("width", [1, 2, 3])
def test_ngrams(width: int) -> None:
    join = kernels("ngrams_op").tf_text_ngrams_string_join
    inner, outer = np.array([0, 0, 3, 4, 9, 15]), np.array([0, 2, 2, 5])
    attrs = {"width": width, "axis": -1, "string_separator": "-"}
    check_function(
        lambda x, inner, outer: join(x, [outer, inner], **attrs), [{"x": TEXTS, "inner": inner, "outer": outer}]
    )
    check_function(lambda x, inner: join(x, [inner], **attrs), [{"x": TEXTS, "inner": inner}])


def test_ngrams_that_make_tensorflow_crash() -> None:
    with pytest.raises(InputError, match="must rise from 0 to their number, 2"):
        OPS["ngrams_join"].function(TEXTS[:2], torch.tensor([-(1 << 31), 100]), width=1, separator=b"")


@pytest.mark.parametrize("width", [1, 2, 3])
def test_dense_ngrams(width: int) -> None:
    """TensorFlow's kernel for dense values crashes (2.21, 5 rows of 3): what it says of the same rows as ragged ones is the witness."""
    attrs = {"reduction_type": text.Reduction.STRING_JOIN, "string_separator": "-"}
    rows = TEXTS.reshape(5, 3)
    program = port(trace(lambda x: text.ngrams(x, width, **attrs), {"x": rows}), ["x"])
    expected = text.ngrams(tf.RaggedTensor.from_tensor(tf.constant(rows)), width, **attrs).to_tensor()
    (found,) = program(x=rows).values()
    assert_equal(found, to_numpy(expected))


def test_bytes() -> None:
    raw = kernels("byte_splitter")
    check_function(lambda x: raw.tf_text_byte_split_with_offsets(x), [{"x": TEXTS}, {"x": TEXTS[:0]}])
    feeds = {
        "x": as_array(["hello world", "", "日本"]), "starts": np.array([0, 6, 5, 0, 1], np.int32), "limits": np.array([5, 11, 5, 0, 4], np.int32),
        "splits": np.array([0, 3, 4, 5]),
    }  # fmt: skip
    by_offsets = lambda x, starts, limits, splits: raw.tf_text_byte_split_by_offsets(x, starts, limits, splits)  # noqa: E731
    check_function(by_offsets, [feeds])
    import torch

    program = port(trace(by_offsets, feeds), list(feeds))
    with pytest.raises(InputError, match="not within"):
        program(x=as_array(["ab"]), starts=torch.tensor([0]), limits=torch.tensor([3]), splits=torch.tensor([0, 1]))


@pytest.mark.parametrize(("length", "bits", "other"), [(4, 21, 65533), (1, 3, 0), (16, 24, 5)])
def test_utf8_binarize(length: int, bits: int, other: int) -> None:
    raw = kernels("utf8_binarize_op")
    binarize = getattr(raw, "tf_text_utf8_binarize")  # noqa: B009
    check_function(
        lambda x: binarize(x, word_length=length, bits_per_char=bits, replacement_char=other),
        [{"x": TEXTS}, {"x": TEXTS[:0]}],
    )


# -- whole functions ------------------------------------------------------------------------------------------------------


def bert() -> Any:
    pieces = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "the",
        "quick",
        "brown",
        "don",
        "'",
        "t",
        "-",
        "stop",
        "strasse",
        "##s",
        "a",
        "b",
        "1",
        "##2",
    ]
    init = tf.lookup.KeyValueTensorInitializer(pieces, tf.range(len(pieces), dtype=tf.int64))
    return text.BertTokenizer(tf.lookup.StaticVocabularyTable(init, 1), lower_case=True)


@pytest.mark.parametrize("trimmer", ["RoundRobinTrimmer", "WaterfallTrimmer", "ShrinkLongestTrimmer"])
def test_bert_inputs(tmp_path: Path, trimmer: str) -> None:
    """What `bert_pack_inputs` and the text guides build: tokens of two sentences, trimmed, marked, padded."""

    def pack(tokenizer: Any, x: Any) -> list[Any]:
        first = tokenizer.tokenize(x).merge_dims(1, 2)
        second = tokenizer.tokenize(tf.strings.reduce_join(tf.stack([x, x], 1), 1, separator=" ")).merge_dims(1, 2)
        kept = getattr(text, trimmer)(max_seq_length=9).trim([first, second])
        ids, types = text.combine_segments(kept, start_of_sequence_id=1, end_of_segment_id=2)
        padded, mask = text.pad_model_inputs(ids, max_seq_length=12)
        kinds, _ = text.pad_model_inputs(types, max_seq_length=12)
        return [padded, mask, kinds]

    check_saved(tmp_path, bert, pack, TEXTS, TEXTS[2:3])


def test_sliding_and_ngrams(tmp_path: Path) -> None:
    def build(tokenizer: Any, x: Any) -> list[Any]:
        words = text.WhitespaceTokenizer().tokenize(x)
        pairs = text.ngrams(words, 2, reduction_type=text.Reduction.STRING_JOIN, string_separator="|")
        return [pairs.flat_values, *pairs.nested_row_splits]

    check_saved(tmp_path, tf.Module, build, TEXTS)
