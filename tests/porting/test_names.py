from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import torch_towers
from porting.names import Namer, clean, identifier, outermost, weight_name
from porting.saved_model import read
from porting.tower import port_tower
from tests.witness import tf
from torch_towers import TwoTower


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


class Variables(tf.Module):  # type: ignore[misc]
    """Variables of the given names and shapes, beside an op `gain` that adds a constant."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.made = [
            tf.Variable(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in shapes.items()
        ]

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(self, x: Any) -> Any:
        with tf.name_scope("gain"):
            x = tf.add(x, np.array([0.5, -1.0, 2.0], np.float32), name="gain")
        for number, variable in enumerate(self.made):
            name = variable.name.partition(":")[0]
            x = (
                tf.matmul(x, variable, name=name)
                if len(variable.shape) == 2
                else tf.add(x * variable, number, name=name)
            )
        return {"y": x}


@pytest.mark.parametrize(
    "shapes",
    [
        {"scale": [3], "scale/bias": [3]},
        {"scale/bias": [3], "scale": [3]},
        {"scale": [3, 3], "scale/kernel": [3, 3], "scale/kernel/bias": [3]},
        {"gain": [3]},
        {"gain": [3, 3], "gain/constant": [3]},
        {"type": [3], "type_": [3]},
        {"type_/kernel": [3, 3], "type": [3, 3], "type/bias": [3]},
        {"forward": [3], "forward/bias": [3], "training": [3], "0": [3]},
    ],
    ids=lambda shapes: "-".join(shapes),
)
def test_variables_inside_the_names_of_others(tmp_path: Path, shapes: dict[str, list[int]]) -> None:
    model = Variables(shapes)
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    expected = model.serve(tf.constant(x))["y"].numpy()
    for lifts in (True, False):
        tower = port_tower(read(tmp_path / "model"), lifts=lifts).tower()
        TwoTower(query=tower).save(tmp_path / f"port-{lifts}")
        loaded = torch_towers.load(tmp_path / f"port-{lifts}").query
        assert loaded is not None
        for each in (tower, loaded):
            # Sums of three products, up to three times: a few roundings of float32 each.
            np.testing.assert_allclose(each({"x": x})["y"].detach().numpy(), expected, rtol=1e-5, atol=1e-5)
        assert {key: value.shape for key, value in tower.state_dict().items()} == {
            key: value.shape for key, value in loaded.state_dict().items()
        }
