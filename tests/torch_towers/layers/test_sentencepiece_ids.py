"""The ids of all texts at once are those of each text by itself, with the marks and the order of TensorFlow."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from torch_towers import native
from torch_towers.layers.sentencepiece import SentencepieceRows, SentencepieceTokenizer
from torch_towers.ops.ragged import ragged_to_tensor
from torch_towers.ops.strings import strings
from torch_towers.ops.text import integers

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [
    b"",
    b"edit photos",
    b"  two  spaces ",
    b"\xff\xfe broken \xc3",
    b"a\0b",
    "caf\u00e9 \u4f60\u597d".encode(),
    b"x" * 300,
]


@pytest.fixture(scope="module")
def model() -> torch.Tensor:
    trained = BytesIO()
    lines = iter(["edit photos and play chess", "two spaces", "caf\u00e9 with friends", "a small model of words"] * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=trained, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    return _tensor(trained.getvalue())


@pytest.mark.parametrize("splits_dtype", ["int32", "int64"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bos, eos", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("repeats", [0, 1, 20])
def test_equals_text_by_text(
    model: torch.Tensor, bos: bool, eos: bool, reverse: bool, splits_dtype: str, repeats: int
) -> None:
    texts = strings(TEXTS * repeats, (-1,))

    def tokenizer(offsets: bool) -> SentencepieceTokenizer:
        return SentencepieceTokenizer(
            model, add_bos=bos, add_eos=eos, reverse=reverse, splits_dtype=splits_dtype, offsets=offsets
        )

    fast, slow = tokenizer(False)(texts), tokenizer(True)(texts)
    for one, other in zip(fast[:2], slow[:2], strict=True):
        assert isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        assert one.dtype == other.dtype and torch.equal(one, other)


# -- the native code gives the package's ids -----------------------------------------------------------------------------

LINES = [
    "edit photos and play chess with friends",
    "caf\u00e9 \u4f60\u597d \u00fcber na\u00efve \u2014 \u201cquotes\u201d \u0410\u0411\u0412 \ufb01 \u2460 \u3042\u3044",
    "a small model of words, of 12 numbers -- and more: x86_64, 3.14, http://a.b/c?d=e",
]
PARTS = [
    *(
        part.encode()
        for part in [" ", "  ", "\t", "\n", "a", "e", "the", "ing", "A", "Z", "~", "|", "\x00", "\x01", "\x7f"]
    ),
    *(
        part.encode()
        for part in ["\u2581", "\u00e9", "e\u0301", "\u0301", "\u4f60", "\ufb01", "\ufdfa", "\u00a0", "\u3000"]
    ),
    *(
        part.encode()
        for part in ["\u200b", "\ufeff", "\u2014", "\U0001f600", "\u00a8", "12", "--", "\ufffd", "chess", "photos"]
    ),
    *(b"\xff", b"\xc3", b"\xe2\x96", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xe2", b"\x80", b"\xc0\x80"),
]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "identity": {"normalization_rule_name": "identity"},
    "folds case": {"normalization_rule_name": "nmt_nfkc_cf"},
    "bytes": {"byte_fallback": True},
    "no prefix": {"add_dummy_prefix": False},
    "keeps spaces": {"remove_extra_whitespaces": False},
    "pieces of several words": {"split_by_whitespace": False, "split_by_unicode_script": False},
    "bpe": {"model_type": "bpe"},
    "user's symbols": {"user_defined_symbols": ["photos and"]},
    "spaces last": {"treat_whitespace_as_suffix": True},
}
SERVED = set(KINDS) - {"bpe", "user's symbols", "spaces last"}


def _tensor(proto: bytes) -> torch.Tensor:
    return torch.tensor(list(proto), dtype=torch.uint8)


def _trained(**options: Any) -> torch.Tensor:
    trained = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20), model_writer=trained, vocab_size=400, hard_vocab_limit=False, minloglevel=2, **options
    )  # fmt: skip
    return _tensor(trained.getvalue())


def _texts(pick: random.Random, count: int) -> list[bytes]:
    whole = [line.encode() for line in LINES]
    return [b"".join(pick.choices(PARTS + whole, k=pick.randrange(30))) for _ in range(count)]


def _ids(tokenizer: SentencepieceTokenizer, texts: Any) -> tuple[list[int], list[int]]:
    values, splits, *_ = tokenizer(texts)
    assert isinstance(values, torch.Tensor) and values.dtype == torch.int32 and splits.dtype == torch.int64
    return integers(values), integers(splits)


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """`native.pieces` set to None leaves the package."""
    if native.pieces is None:
        pytest.skip("the native code was not built (no compiler)")
    with monkeypatch.context() as patch:
        yield patch


@pytest.mark.parametrize("kind", KINDS)
def test_native_equals_the_package(switch: pytest.MonkeyPatch, kind: str) -> None:
    model = _trained(**KINDS[kind])
    assert (native.pieces.open(model.numpy().tobytes()) is not None) == (kind in SERVED)
    texts = strings(_texts(random.Random(kind), 1500) + TEXTS, (-1,))
    marks: list[dict[str, Any]] = [{}, {"add_bos": True, "add_eos": True}, {"add_eos": True, "reverse": True}]
    for mark in marks:
        tokenizer = SentencepieceTokenizer(model, offsets=False, **mark)
        rows = [SentencepieceRows(model, shift=3, pad=7, length=length, **mark) for length in (-1, 0, 12)]
        found, padded = _ids(tokenizer, texts), [each(texts) for each in rows]
        switch.setattr(native, "pieces", None)
        assert found == _ids(tokenizer, texts)
        for each, one in zip(rows, padded, strict=True):
            assert one.dtype == torch.int32 and torch.equal(one, each(texts))
        switch.undo()


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _piece(text: str, score: float, kind: int = 1) -> bytes:
    return _field(1, _field(1, text.encode()) + b"\x15" + np.float32(score).tobytes() + bytes([0x18, kind]))


@pytest.mark.parametrize("seed", range(8))
def test_ties_and_what_rounding_decides(switch: pytest.MonkeyPatch, seed: int) -> None:
    """Segmentations that are as good as each other, or nearly: the sum of all words before decides which one wins."""
    pick = random.Random(seed)
    letters = "ab" if seed % 2 else "abc"
    close = [0, 1e-7, 2e-7, -1e-6, 1e-6, 1e-5, -1e-4, 1e-3]

    def score(length: int) -> float:
        if seed < 2:
            return -1.0 * length
        return length * (-2 + pick.choice(close)) if seed < 6 else pick.uniform(-15, -1)

    pieces = {"\u2581": score(1)}
    for length in range(1, 5):
        for word in map("".join, itertools.product(letters, repeat=length)):
            pieces |= {word: score(length)} if pick.random() < 0.6 else {}
            pieces |= {f"\u2581{word}": score(length + 1)} if pick.random() < 0.4 else {}
    proto = _piece("<unk>", 0, 2) + _piece("<s>", 0, 3) + _piece("</s>", 0, 3)
    proto += b"".join(_piece(*item) for item in pieces.items()) + _field(2, b"\x18\x01") + _field(3, b"")
    sizes = [1, 2, 3, 4, 5, 8, 12, 70]
    counts = [1, 3, 10, 60, 400, 1500] * 6
    words = [
        ["".join(pick.choices(letters + "zz"[seed % 2 :], k=pick.choice(sizes))) for _ in range(n)] for n in counts
    ]
    texts = strings([" ".join(row).encode() for row in words], (-1,))
    tokenizer = SentencepieceTokenizer(_tensor(proto), offsets=False)
    each = [texts[row : row + 1] for row in range(len(texts))]  # each by itself: some are left to the package
    found = [_ids(tokenizer, text) for text in [*each, texts[:20]]]
    switch.setattr(native, "pieces", None)
    assert found == [_ids(tokenizer, text) for text in [*each, texts[:20]]]


def test_words_are_forgotten_when_there_are_too_many(switch: pytest.MonkeyPatch, model: torch.Tensor) -> None:
    pick = random.Random(0)
    words = ["".join(pick.choices("abcdefghijk", k=8)) for _ in range(60_000)]
    texts = strings([" ".join(words[i : i + 30]).encode() for i in range(0, len(words), 30)] * 2, (-1,))
    tokenizer = SentencepieceTokenizer(model, offsets=False)
    found = _ids(tokenizer, texts)
    switch.setattr(native, "pieces", None)
    assert found == _ids(tokenizer, texts)


def test_scores_too_far_from_zero_are_left_to_the_package(switch: pytest.MonkeyPatch, model: torch.Tensor) -> None:
    read = native.pieces.open(model.numpy().tobytes())
    assert native.pieces.encode(read, [b"~" * 20_000 + b" photos"], -1, -1, False, 0, False, -1, 0) is None
    texts = strings([b"~" * 20_000 + b" photos", b"edit"], (-1,))
    tokenizer = SentencepieceTokenizer(model, offsets=False)
    found = _ids(tokenizer, texts)
    switch.setattr(native, "pieces", None)
    assert found == _ids(tokenizer, texts)


def test_broken_models_are_read_within_their_bounds(switch: pytest.MonkeyPatch, model: torch.Tensor) -> None:
    proto = model.numpy().tobytes()
    pick = random.Random(1)
    for _ in range(1000):
        broken = bytearray(proto)
        for _ in range(pick.randint(1, 4)):
            broken[pick.randrange(len(broken))] = pick.randrange(256)
        read = native.pieces.open(bytes(broken[: pick.choice([len(broken), pick.randrange(len(broken))])]))
        if read is not None:  # the package refuses or reads them; here nothing is asked but that it ends
            native.pieces.encode(read, TEXTS, -1, -1, False, 0, True, -1, 0)


@pytest.mark.parametrize("length", [-1, 0, 3, 12])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_rows_are_the_padded_tokens(model: torch.Tensor, count: int, length: int) -> None:
    texts = strings(TEXTS[1 : count + 1] if count < 7 else TEXTS, (-1,))
    ids, splits, *_ = SentencepieceTokenizer(model, offsets=False)(texts)
    assert isinstance(ids, torch.Tensor)
    want = ragged_to_tensor(ids + 1, torch.tensor(0, dtype=torch.int32), (splits,), -1, length, types=("ROW_SPLITS",))
    rows = SentencepieceRows(model, shift=1, length=length)(texts)
    assert isinstance(want, torch.Tensor) and rows.dtype == want.dtype and torch.equal(rows, want)


def test_many_threads_at_once(switch: pytest.MonkeyPatch) -> None:
    """More threads than there are memories for words: the others do without."""
    tokenizer = SentencepieceTokenizer(_trained(), offsets=False)
    parts = [strings(_texts(random.Random(seed), 200), (-1,)) for seed in range(40)]
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(partial(_ids, tokenizer), parts * 3))
    switch.setattr(native, "pieces", None)
    assert found == [_ids(tokenizer, part) for part in parts] * 3
