from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porting.names import Namer, clean, identifier, outermost, weight_name


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("StatefulPartitionedCall/functional_1/dense_1/MatMul", "dense_1.MatMul"),
        ("model_1/sequential_2/dense/MatMul", "dense.MatMul"),
        ("PartitionedCall_3/call/tower/add", "tower.add"),
        ("__inference_serve_42/x", "x"),
        ("dense/StatefulPartitionedCall/MatMul", "dense.MatMul"),
        ("dense/model/MatMul", "dense.model.MatMul"),  # only the outermost wrapper says nothing
        ("model", "model"),
        ("StatefulPartitionedCall", "value"),
        ("", "value"),
        ("a//b", "a.b"),
        ("1x/kernel:0", "_1x.kernel_0"),
        ("Wörter/b-c d", "W_rter.b_c_d"),
    ],
)
def test_scopes_become_dotted_names(scope: str, name: str) -> None:
    assert clean(scope) == name


@given(st.text())
def test_every_name_can_be_an_attribute(scope: str) -> None:
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", part) for part in clean(scope).split("."))
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", identifier(scope))


@pytest.mark.parametrize(
    ("variable", "weight"),
    [
        ("dense_1.kernel", "dense_1.weight"),
        ("norm.gamma", "norm.weight"),
        ("norm.beta", "norm.bias"),
        ("norm.moving_mean", "norm.moving_mean"),
        ("embeddings", "weight"),
        ("kernel.scale", "kernel.scale"),
    ],
)
def test_weights_have_pytorchs_words(variable: str, weight: str) -> None:
    assert weight_name(variable) == weight


def test_a_namer_gives_each_name_once() -> None:
    name = Namer()
    assert [name("dense"), name("dense"), name("dense_2"), name("dense"), name("other")] == [
        "dense",
        "dense_2",
        "dense_2_2",
        "dense_3",
        "other",
    ]


@given(st.lists(st.sampled_from(["a", "a_2", "a_2_2", "a_3", "b"]), max_size=30))
def test_no_two_names_of_a_namer_are_equal(wanted: list[str]) -> None:
    name = Namer()
    assert len({name(item) for item in wanted}) == len(wanted)


def test_the_model_around_everything() -> None:
    assert outermost(["query_1/dense/MatMul", "StatefulPartitionedCall/query_1/add"]) == "query_1"
    assert outermost(["query_1/add", "candidate/add"]) == ""
    assert outermost(["add", "sub"]) == ""  # no scopes
    assert outermost([]) == ""
