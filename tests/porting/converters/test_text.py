"""TensorFlow Text's normalizers and splitters against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.witness import as_array, check_function, port, trace
from torch_towers.errors import InputError

text: Any = pytest.importorskip("tensorflow_text", reason="TensorFlow Text is the witness of these tests")
from tensorflow_text.python import ops  # noqa: E402

COVERED = {
    "CaseFoldUTF8", "NormalizeUTF8", "RegexSplitWithOffsets", "WhitespaceTokenizeWithOffsets", "UnicodeScriptTokenizeWithOffsets",
    "TFText>WhitespaceTokenizeWithOffsetsV2", "SplitMergeTokenizeWithOffsets", "TokenizerFromLogits",
}  # fmt: skip

TEXTS = as_array(
    [
        "", "a\0b c", " the Quick  brown", "İstanbul ıI", "Straße ẞ ﬁ Å", "ｆｕｌｌ　ｗｉｄｔｈ", "日本語 text、ok", "สวัสดี ครับ", "👨‍👩‍👧 👍🏽",
        "e\u0301\u0323 \u1e9b\u0323", "\u1100\u1161\u11a8", "don't-stop, 12,5%!", "\u00a0x\u2028y\u3000", b"bad \xff\xc3 \xe2\x82x",
        "Ελληνικά 123 Русский",
    ]
)  # fmt: skip


def kernels(module: str, *, newest: bool = False) -> Any:
    """The raw ops that one file of tensorflow_text wraps."""
    wrapper = getattr(ops, module)
    return next(
        getattr(wrapper, name) for name in sorted(dir(wrapper), key=len, reverse=newest) if name.startswith("gen_")
    )


@pytest.mark.parametrize("form", ["NFC", "nfd", "NFKC", "NFKD"])
def test_normalize(form: str) -> None:
    check_function(lambda x: text.normalize_utf8(x, form), [{"x": TEXTS}, {"x": TEXTS[:0]}])
    check_function(lambda x: text.normalize_utf8(x, form), [{"x": TEXTS.reshape(5, 3)}])


def test_case_fold() -> None:
    check_function(lambda x: text.case_fold_utf8(x), [{"x": TEXTS}, {"x": TEXTS[:0]}])


@pytest.mark.parametrize(
    "delimiter", [rb"(\s+|[!-/])", rb"(\p{P}|[\x{4E00}-\x{9FFF}])", rb"(^a|k$|\bt)", rb"([^\p{L}]+)", rb"no group"]
)
@pytest.mark.parametrize("keep", [b"", rb"\p{P}", rb"(.*)"])
def test_regex_split(delimiter: bytes, keep: bytes) -> None:
    split = kernels("regex_split_ops").regex_split_with_offsets
    check_function(lambda x: split(x, delimiter, keep), [{"x": TEXTS}, {"x": TEXTS[:0]}])


@pytest.mark.parametrize("delimiter", [rb"(x*)", rb"x(y)?", rb"(("])
def test_regex_split_refuses(delimiter: bytes) -> None:
    """An invalid pattern, and patterns with which TensorFlow never ends."""
    split = kernels("regex_split_ops").regex_split_with_offsets
    program = port(trace(lambda x: split(x, delimiter, b""), {"x": TEXTS}), ["x"])
    with pytest.raises(InputError, match=r"delimiter|Invalid pattern"):
        program(x=as_array(["axb"]))


def test_whitespace() -> None:
    tokenizer = text.WhitespaceTokenizer()
    split = kernels("whitespace_tokenizer", newest=True).tf_text_whitespace_tokenize_with_offsets_v2
    check_function(lambda x: split(x, tokenizer._config), [{"x": TEXTS}, {"x": TEXTS[:0]}])
    check_function(lambda x: split(x, b"\0\0\0\0\1"), [{"x": TEXTS}])


def codepoints(texts: np.ndarray) -> dict[str, np.ndarray]:
    rows = [[ord(character) for character in item.decode("utf-8", "replace")] for item in texts.tolist()]
    rows.append([0x110000, -5, 32, 65])
    return {
        "values": np.array([code for row in rows for code in row], np.int32),
        "splits": np.cumsum([0, *map(len, rows)]).astype(np.int64),
    }


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_codepoints(dtype: Any) -> None:
    feeds = codepoints(TEXTS)
    feeds["splits"] = feeds["splits"].astype(dtype)
    script = kernels("unicode_script_tokenizer").unicode_script_tokenize_with_offsets
    check_function(lambda values, splits: script(values, splits), [feeds])
    check_function(lambda values, splits: script(values, splits, keep_whitespace=True), [feeds])
    whitespace = kernels("whitespace_tokenizer").whitespace_tokenize_with_offsets
    check_function(lambda values, splits: whitespace(values, splits), [feeds])


@pytest.mark.parametrize("force", [True, False])
def test_split_merge(force: bool) -> None:
    generator = np.random.default_rng(0)
    texts = as_array([*TEXTS.tolist(), b" lead", b"\x80\x80 \xbf\xff\xff\xff\xff"])
    counts = [len(item) for item in texts.tolist()]
    splits = np.cumsum([0, *counts]).astype(np.int32)
    split = kernels("split_merge_tokenizer").split_merge_tokenize_with_offsets
    check_function(
        lambda x, labels, splits: split(x, labels, splits, force_split_at_break_character=force),
        [{"x": texts, "labels": generator.integers(0, 3, splits[-1]).astype(np.int32), "splits": splits}],
    )
    logits = generator.integers(-1, 2, (len(texts), max(counts), 2)).astype(np.float32)
    logits[3, :, 1] = np.nan
    from_logits = kernels("split_merge_from_logits_tokenizer").tokenizer_from_logits
    check_function(lambda x, logits: from_logits(x, logits, force), [{"x": texts, "logits": logits}])


def test_split_merge_refuses() -> None:
    from_logits = kernels("split_merge_from_logits_tokenizer").tokenizer_from_logits
    feeds = {"x": as_array(["abc"]), "logits": np.zeros((1, 2, 2), np.float32)}
    program = port(trace(lambda x, logits: from_logits(x, logits, True), feeds), ["x", "logits"])
    with pytest.raises(InputError, match="too few"):
        import torch

        program(x=feeds["x"], logits=torch.zeros(1, 2, 2))
