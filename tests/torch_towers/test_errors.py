"""Errors are one sentence each, and no file makes a sentence a megabyte long."""

from __future__ import annotations

from torch_towers.errors import CheckpointError, InputError, TorchTowersError, suggestion


def test_the_kinds() -> None:
    assert issubclass(CheckpointError, TorchTowersError)
    assert issubclass(InputError, TorchTowersError)
    assert issubclass(InputError, ValueError)


def test_the_middle_of_a_long_sentence_is_left_out() -> None:
    said = str(TorchTowersError("begin" + "x" * 10**6 + "end"))
    assert said.startswith("begin")
    assert said.endswith("end")
    assert len(said) < 2100
    assert str(TorchTowersError("x" * 2000)) == "x" * 2000


def test_suggestions() -> None:
    assert suggestion("cosin", ["dot", "cosine"]) == " (did you mean 'cosine'?)"
    assert suggestion("nothing like it", ["dot", "cosine"]) == ""
