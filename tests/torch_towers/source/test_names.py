"""Names for a generated file: always identifiers, never somebody else's, whatever a checkpoint says."""

from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torch_towers.source.names import class_name, identifier, plain, variable


@given(st.text(), st.booleans())
def test_any_text_becomes_an_identifier(text: str, attribute: bool) -> None:
    name = identifier(text, set(), attribute=attribute)
    assert name.isascii()
    assert name.isidentifier()
    assert not keyword.iskeyword(name)


def test_what_is_taken_or_reserved_is_left_alone() -> None:
    taken = {"x"}
    assert [identifier("x", taken) for _ in range(2)] == ["x_2", "x_3"]
    assert taken == {"x", "x_2", "x_3"}
    assert identifier("torch", set()) == "torch_"
    assert identifier("torch", set(), attribute=True) == "torch"
    assert identifier("forward", set(), attribute=True) == "forward_"
    assert hasattr(nn.Module, "forward")
    assert identifier("3d", set()) == "x3d"


def test_classes() -> None:
    assert class_name("query tower", set()) == "QueryTower"
    assert class_name("int", {"Int"}) == "Int_2"


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("tower.dense_1.MatMul", "dense"),
        ("tower.dense_1.add_3", "dense"),
        ("LayerNorm.truediv", "layer_norm"),
        ("concatenate_1_1.concat", "concatenate"),
        ("attention.softmaxScores", "softmax_scores"),
    ],
)
def test_a_value_is_called_after_its_layer(node: str, name: str) -> None:
    assert variable(node, set()) == name


def test_a_layers_own_number_stays() -> None:
    assert variable("tower.dense_1.MatMul", {"dense_1"}) == "dense_1"


@given(st.text())
def test_no_text_ends_a_comment_or_a_docstring(text: str) -> None:
    shown = plain(text)
    assert not set('"\\\n\r') & set(shown)
    assert len(shown) <= 120
