"""Splitting at spaces with memoized words, and mapping ASCII at once, equals processing whole texts."""

from __future__ import annotations

import gc
import random
from itertools import accumulate
from typing import Any

import pytest
import torch

from tests.porting.converters.test_text import text
from torch_towers.layers.fast_bert import FastBertNormalizer, FastWordpieceTokenizer
from torch_towers.ops.strings import strings
from torch_towers.ops.text import integers

PARTS = [
    *(
        b" ",
        b"  ",
        b"\t",
        b"\n",
        b"a",
        b"b",
        b"ab",
        b"un",
        b"aff",
        b"able",
        b"##",
        b"#",
        b"[UNK]",
        b"!",
        b"-",
        b"\0",
        b"\x7f",
    ),
    *(
        part.encode()
        for part in ["\u00e9", "E\u0301", "\u65e5", "\u3000", "\u00a0", "\u0130", "\U0001f600", "\u2014", "A", "Z"]
    ),
    *(b"\xff", b"\xc3", b"\xe2\x96", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xe2", b"\x80"),
]
VOCABULARY = [
    "[UNK]",
    "a",
    "un",
    "##aff",
    "##able",
    "##a",
    "##ab",
    "ab",
    "##c",
    "abcdef",
    "##ef",
    "日",
    "##日",
    "é",
    "##é",
    "##b",
    "##",
    "#",
    "###",
    "!",
    "##!",
    "-",
]


def texts(count: int, seed: int = 0) -> list[bytes]:
    pick = random.Random(seed)
    return [b"", b" ", *(b"".join(pick.choices(PARTS, k=pick.randrange(24))) for _ in range(count))]


def model(layer: Any) -> torch.Tensor:
    return torch.tensor(list(bytes(layer._model.numpy())), dtype=torch.uint8)


def tokenizer(suffix: str, most: int, single: bool, *more: str) -> FastWordpieceTokenizer:
    pieces = [piece if piece in ("##", "###") else piece.replace("##", suffix) for piece in VOCABULARY]
    known = list(dict.fromkeys(filter(None, [*pieces, *more])))
    return FastWordpieceTokenizer(
        model(text.FastWordpieceTokenizer(known, suffix_indicator=suffix, max_bytes_per_word=most, no_pretokenization=single))
    )  # fmt: skip


def check(made: FastWordpieceTokenizer, given: list[bytes]) -> None:
    found = made(strings(given, (-1,)))
    whole = [made._tokens(one) for one in given]
    assert found[0].tolist() == [piece for one in whole for piece in one.pieces]
    columns = ([one.ids for one in whole], [one.starts for one in whole], [one.limits for one in whole])
    for column, lists in zip((found[1], found[3], found[4]), columns, strict=True):
        assert column.dtype == torch.int64 and integers(column) == [item for one in lists for item in one]
    assert integers(found[2]) == [0, *accumulate(len(one.ids) for one in whole)]


@pytest.mark.parametrize("suffix", ["##", "<s>", ""])
@pytest.mark.parametrize("most", [100, 7])
def test_words_equal_whole_texts(suffix: str, most: int) -> None:
    made = tokenizer(suffix, most, False)
    assert made._parts == (suffix != ""), "without a suffix a word can reach into the next"
    check(made, texts(1500))
    check(made, texts(1500))  # all of them known


def test_many_texts_do_not_wake_the_garbage_collector() -> None:
    """A list for each of 20,000 texts did, and a collection of all objects took six times as long as the texts."""
    made = tokenizer("##", 100, False)
    given = strings(texts(300) * 70, (-1,))
    made(given)
    starts: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        starts.append(info["generation"])

    gc.callbacks.append(count)
    try:
        made(given)
    finally:
        gc.callbacks.remove(count)
    assert len(starts) <= 4, "two collections of the youngest objects at most, each with a start and a stop"


def test_single_words() -> None:
    made = tokenizer("##", 100, True)
    assert not made._parts
    check(made, texts(300))


def test_pieces_with_spaces_keep_texts_whole() -> None:
    made = tokenizer("##", 100, False, "un a", "##a b")
    assert not made._parts
    check(made, texts(300))


def test_which_bytes_a_trie_has() -> None:
    made = tokenizer("##", 100, True)
    held = {byte for piece in VOCABULARY for byte in piece.encode()}
    assert {byte for byte in range(1, 256) if made._trie.has(byte)} >= held
    assert not any(made._trie.has(byte) for byte in b" zqXYZ")


@pytest.mark.parametrize("lower", [False, True])
def test_ascii_at_once_is_character_by_character(lower: bool) -> None:
    made = FastBertNormalizer(model(text.FastBertNormalizer(lower_case_nfd_strip_accents=lower)))
    assert made._ascii is not None
    given = [*texts(1500), bytes(range(256)), bytes(range(128))]
    found, offsets, splits = made(strings(given, (-1,)))
    assert found.tolist() == [made._by_character(one) for one in given]
    assert not len(offsets) and integers(splits) == [0] * (len(given) + 1)
    made._ascii = None
    assert made(strings(given, (-1,)))[0].tolist() == found.tolist()


def test_images_that_are_not_utf8() -> None:
    made = FastBertNormalizer(model(text.FastBertNormalizer()))
    made._mapped["\u00e9".encode()] = b"\xff"
    given = ["a\u00e9".encode(), "\u00e9\u65e5".encode(), b"\xc3", "\u65e5\u0130".encode()]
    assert made(strings(given, (-1,)))[0].tolist() == [made._by_character(one) for one in given]
    assert made(strings(given[:1], (1,)))[0].tolist() == [b"a\xff"]
