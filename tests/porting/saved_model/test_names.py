"""Unique names of TF nodes, counted as TensorFlow counts."""

from __future__ import annotations

from porting.saved_model.names import Names


def test_a_name_is_given_once() -> None:
    names = Names(["dense", "dense_1"])
    assert [names.unique("dense") for _ in range(2)] == ["dense_2", "dense_3"]
    assert [names.unique("x") for _ in range(3)] == ["x", "x_1", "x_2"]
    assert names.unique("x_1") == "x_1_1"
