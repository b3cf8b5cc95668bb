"""What the subcommands share: pairs of names, positive numbers, one row of inputs."""

from __future__ import annotations

import argparse

import pytest

from tests.torch_towers.towers import id_tower, word_tower
from torch_towers.commands.options import pair, positive, read_row


def test_pairs() -> None:
    assert pair("color") == ("color", "color")
    assert pair("color=tint") == ("color", "tint")
    assert pair("a=b=c", both=True) == ("a", "b=c")
    for wrong in ("", "=b", "a="):
        with pytest.raises(ValueError, match="is not NAMESPACE or NAMESPACE=COLUMN"):
            pair(wrong)
    with pytest.raises(ValueError, match="'a' is not FEATURE=COLUMN"):
        pair("a", both=True)


def test_positive_numbers() -> None:
    assert positive("3") == 3
    for wrong in ("0", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
            positive(wrong)


def test_a_row_is_json_or_the_text_of_the_only_feature() -> None:
    assert read_row('{"word": "red", "size": 0.5}', word_tower(), "query") == {"word": "red", "size": 0.5}
    for text, tower, said in (
        ("red", word_tower(), r"takes word \(string\), size \(float32\): give a JSON object of them, not 'red'"),
        ('{"word": ', word_tower(), "is not a valid JSON object"),
        ('{"word": 3, "size": "big"}', word_tower(), "word|size"),
        ('{"id": "x"}', id_tower(), "id"),
        ("x", None, "this checkpoint has no query tower"),
    ):
        with pytest.raises(ValueError, match=said):
            read_row(text, tower, "query")
