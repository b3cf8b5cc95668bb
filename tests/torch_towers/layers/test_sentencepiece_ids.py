"""Batched ids equal those of single texts, with TensorFlow's markers and order."""

from __future__ import annotations

from io import BytesIO

import pytest
import torch

from torch_towers.layers.sentencepiece import SentencepieceRows, SentencepieceTokenizer
from torch_towers.ops.ragged import ragged_to_tensor
from torch_towers.ops.strings import strings

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
    return torch.tensor(list(trained.getvalue()), dtype=torch.uint8)


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


@pytest.mark.parametrize("length", [-1, 0, 3, 12])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_rows_are_the_padded_tokens(model: torch.Tensor, count: int, length: int) -> None:
    texts = strings(TEXTS[1 : count + 1] if count < 7 else TEXTS, (-1,))
    ids, splits, *_ = SentencepieceTokenizer(model, offsets=False)(texts)
    assert isinstance(ids, torch.Tensor)
    want = ragged_to_tensor(ids + 1, torch.tensor(0, dtype=torch.int32), (splits,), -1, length, types=("ROW_SPLITS",))
    rows = SentencepieceRows(model, shift=1, length=length)(texts)
    assert isinstance(want, torch.Tensor) and rows.dtype == want.dtype and torch.equal(rows, want)
