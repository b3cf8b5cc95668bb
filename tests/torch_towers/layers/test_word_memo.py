"""Words remembered over batches have the tokens that each has alone."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_towers.layers import word_memo
from torch_towers.layers.word_memo import Found, Pieces, WordMemo

WORDS = st.lists(st.text(st.sampled_from("abc"), max_size=4).map(str.encode), max_size=8)


def letters(word: bytes) -> Pieces:
    """One token per letter."""
    found = Pieces()
    for place, letter in enumerate(word):
        found.add(bytes([letter]), letter, place, place + 1)
    return found


def check(found: Found, words: list[bytes]) -> None:
    assert found.lengths.tolist() == [len(word) for word in words]
    assert found.pieces[found.taken].tolist() == [bytes([letter]) for word in words for letter in word]
    assert found.ids[found.taken].tolist() == [letter for word in words for letter in word]
    assert found.starts[found.taken].tolist() == [place for word in words for place in range(len(word))]
    assert (found.limits[found.taken] - found.starts[found.taken]).tolist() == [1] * sum(map(len, words))


@settings(max_examples=50, deadline=None)
@given(st.lists(WORDS, max_size=5))
def test_batches_of_words(batches: list[list[bytes]]) -> None:
    memo = WordMemo(letters)
    for words in batches:
        check(memo(words), words)


def test_a_word_is_matched_once() -> None:
    met: list[bytes] = []
    memo = WordMemo(lambda word: met.append(word) or letters(word))
    memo([b"a", b"b", b"a"])
    memo([b"b", b"c"])
    assert met == [b"a", b"b", b"c"]


def test_words_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memo, "_REMEMBERED", 10)
    memo = WordMemo(letters)
    check(memo([b"abcd", b"abc"]), [b"abcd", b"abc"])
    before = memo._memory
    check(memo([b"abcd"]), [b"abcd"])
    assert memo._memory is before
    check(memo([b"abcd", b"b"]), [b"abcd", b"b"])
    assert memo._memory is not before


def test_threads_share_a_memory() -> None:
    memo, wrong = WordMemo(letters), list[BaseException]()

    def run(seed: int) -> None:
        try:
            for i in range(100):
                words = [b"abc"[: 1 + (i + seed + j) % 3] * (1 + (i * j) % 7) for j in range(10)]
                check(memo(words), words)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
