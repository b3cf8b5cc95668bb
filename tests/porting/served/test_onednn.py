"""NaN before a relu: 0 if TensorFlow with oneDNN fuses the relu into a product, else NaN, as in a saved signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import torch_towers
from porting.parity.oracle import Oracle
from porting.port import main
from porting.saved_model import read
from porting.served import Served
from porting.tower import PortedTower, port_tower
from tests.witness import tf
from torch_towers.graph.registry import OPS
from torch_towers.program.program import walk

relu, relu6, bias_add = tf.nn.relu, tf.nn.relu6, tf.nn.bias_add


class Weights(tf.Module):  # type: ignore[misc]
    """Variables for every case: of four channels, so that all shapes fit."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        for name, shape in {"w": (4, 4), "b": (4,), "k": (3, 3, 4, 4), "k1": (1, 1, 4, 4), "depth": (3, 3, 4, 1), "k3": (2, 2, 2, 4, 4),
                            "c1": (3, 4, 4)}.items():  # fmt: skip
            setattr(self, name, tf.Variable(rng.normal(size=shape).astype(np.float32)))
        self.one = tf.Variable(np.ones(4, np.float32))

    def norm(self, x: Any, training: bool = False) -> Any:
        return tf.compat.v1.nn.fused_batch_norm(
            x, self.one, self.b, self.b, self.one, epsilon=1e-3, is_training=training
        )[0]

    def conv(self, x: Any, kernel: Any = None, strides: int = 1) -> Any:
        return tf.nn.conv2d(x, self.k if kernel is None else kernel, strides, "SAME")

    def depthwise(self, x: Any) -> Any:
        return tf.nn.depthwise_conv2d(x, self.depth, [1, 1, 1, 1], "SAME")


ROWS, IMAGES, TEXTS, VOLUMES = (4,), (6, 6, 4), (5, 4), (3, 3, 3, 4)
Case = tuple[tuple[int, ...], Callable[[Weights, Any], Any]]

CASES: dict[str, Case] = {
    "dense": (ROWS, lambda m, x: relu(bias_add(x @ m.w, m.b))),
    "dense, relu6": (ROWS, lambda m, x: relu6(bias_add(x @ m.w, m.b))),
    "dense, +": (ROWS, lambda m, x: relu(x @ m.w + m.b)),
    "dense, + from the left": (ROWS, lambda m, x: relu(m.b + x @ m.w)),
    "dense, an identity between": (ROWS, lambda m, x: relu(tf.identity(bias_add(x @ m.w, m.b)))),
    "dense, transposed kernel": (ROWS, lambda m, x: relu(bias_add(tf.matmul(x, m.w, transpose_b=True), m.b))),
    "dense, computed bias": (ROWS, lambda m, x: relu(bias_add(x @ m.w, tf.sin(m.b)))),
    "dense, relu read twice": (ROWS, lambda m, x: (h := relu(bias_add(x @ m.w, m.b))) * tf.exp(h)),
    "dense twice": (ROWS, lambda m, x: relu(bias_add(relu(bias_add(x @ m.w, m.b)) @ m.w, m.b))),
    "dense twice, the same": (ROWS, lambda m, x: relu(bias_add(x @ m.w, m.b)) + relu(bias_add(x @ m.w, m.b))),
    "dense, transposed twice": (ROWS, lambda m, x: relu(bias_add(tf.matmul(tf.transpose(x), m.w, transpose_a=True), m.b))),
    "dense, bfloat16": (ROWS, lambda m, x: tf.cast(relu(bias_add(*_cast(m, x, tf.bfloat16))), tf.float32)),
    "dense, in a branch": (ROWS, lambda m, x: tf.cond(tf.shape(x)[0] > 0, lambda: relu(bias_add(x @ m.w, m.b)), lambda: x)),
    "dense, in a map": (ROWS, lambda m, x: tf.map_fn(lambda v: relu(bias_add(v[None] @ m.w, m.b))[0], x)),
    "dense, constant weights": (ROWS, lambda m, x: relu(bias_add(x @ tf.ones([4, 4]), tf.ones([4])))),
    "dense, an assertion": (ROWS, lambda m, x: _asserted(m, x)),
    "conv": (IMAGES, lambda m, x: relu(bias_add(m.conv(x), m.b))),
    "conv, relu6": (IMAGES, lambda m, x: relu6(bias_add(m.conv(x), m.b))),
    "conv, +": (IMAGES, lambda m, x: relu(m.conv(x) + m.b)),
    "conv 1x1": (IMAGES, lambda m, x: relu(bias_add(m.conv(x, m.k1), m.b))),
    "conv, strides": (IMAGES, lambda m, x: relu(bias_add(m.conv(x, strides=2), m.b))),
    "conv, norm": (IMAGES, lambda m, x: relu(m.norm(m.conv(x)))),
    "conv, norm, relu6": (IMAGES, lambda m, x: relu6(m.norm(m.conv(x)))),
    "conv, residual": (IMAGES, lambda m, x: relu(bias_add(m.conv(x), m.b) + x)),
    "two convs added": (IMAGES, lambda m, x: relu(bias_add(m.conv(x), m.b) + bias_add(m.conv(x, m.k1), m.b))),
    "norm": (IMAGES, lambda m, x: relu(m.norm(x))),
    "depthwise conv": (IMAGES, lambda m, x: relu(bias_add(m.depthwise(x), m.b))),
    "depthwise conv, relu6": (IMAGES, lambda m, x: relu6(bias_add(m.depthwise(x), m.b))),
    "depthwise conv, norm": (IMAGES, lambda m, x: relu(m.norm(m.depthwise(x)))),
    "conv of volumes": (VOLUMES, lambda m, x: relu(bias_add(tf.nn.conv3d(x, m.k3, [1] * 5, "SAME"), m.b))),
    # not fused: NaN stays
    "no bias": (ROWS, lambda m, x: relu(x @ m.w)),
    "a bias of zeros": (ROWS, lambda m, x: relu(bias_add(x @ tf.ones([4, 4]), tf.zeros([4])))),
    "a number for a bias": (ROWS, lambda m, x: relu(x @ m.w + 2.0)),
    "not a bias": (ROWS, lambda m, x: relu(x @ m.w + x)),
    "dense, residual": (ROWS, lambda m, x: relu(bias_add(x @ m.w, m.b) + x)),
    "the sum is read twice": (ROWS, lambda m, x: relu(h := bias_add(x @ m.w, m.b)) + tf.exp(h)),
    "the product is read twice": (ROWS, lambda m, x: relu(bias_add(h := x @ m.w, m.b)) + tf.exp(h)),
    "float64": (ROWS, lambda m, x: tf.cast(relu(bias_add(*_cast(m, x, tf.float64))), tf.float32)),
    "float16": (ROWS, lambda m, x: tf.cast(relu(bias_add(*_cast(m, x, tf.float16))), tf.float32)),
    "transposed input": (ROWS, lambda m, x: relu(bias_add(tf.matmul(tf.exp(x), m.w, transpose_a=True), m.b))),
    "transposed before": (ROWS, lambda m, x: relu(bias_add(tf.transpose(x) @ m.w, m.b))),
    "rank 3": (TEXTS, lambda m, x: relu(bias_add(tf.matmul(x, m.w), m.b))),
    "rank 3 by rank 2": (TEXTS, lambda m, x: relu(bias_add(tf.reshape(tf.reshape(x, [-1, 4]) @ m.w, [-1, 5, 4]), m.b))),
    "conv, no bias": (IMAGES, lambda m, x: relu(m.conv(x))),
    "conv of texts": (TEXTS, lambda m, x: relu(bias_add(tf.nn.conv1d(x, m.c1, 1, "SAME"), m.b))),
    "conv, norm, residual": (IMAGES, lambda m, x: relu(m.norm(m.conv(x)) + x)),
    "norm, relu6": (IMAGES, lambda m, x: relu6(m.norm(x))),
    "depthwise conv, norm, relu6": (IMAGES, lambda m, x: relu6(m.norm(m.depthwise(x)))),
    "norm of the batch": (IMAGES, lambda m, x: relu(m.norm(x, True))),
    "relu alone": (ROWS, lambda m, x: relu(x)),
    "maximum": (ROWS, lambda m, x: tf.maximum(bias_add(x @ m.w, m.b), 0.0)),
    "elu": (ROWS, lambda m, x: tf.nn.elu(bias_add(x @ m.w, m.b))),
    "leaky relu": (ROWS, lambda m, x: tf.nn.leaky_relu(bias_add(x @ m.w, m.b))),
    "tanh": (ROWS, lambda m, x: tf.tanh(bias_add(x @ m.w, m.b))),
    "sigmoid": (ROWS, lambda m, x: tf.sigmoid(bias_add(x @ m.w, m.b))),
    "gelu": (ROWS, lambda m, x: tf.nn.gelu(bias_add(x @ m.w, m.b), approximate=True)),
    "swish": (ROWS, lambda m, x: tf.nn.silu(bias_add(x @ m.w, m.b))),
    "hard swish": (ROWS, lambda m, x: (h := bias_add(x @ m.w, m.b)) * relu6(h + 3.0) * (1 / 6)),
}  # fmt: skip


def _cast(m: Weights, x: Any, dtype: Any) -> tuple[Any, Any]:
    return tf.cast(x, dtype) @ tf.cast(m.w, dtype), tf.cast(m.b, dtype)


def _asserted(m: Weights, x: Any) -> Any:
    with tf.control_dependencies([tf.debugging.Assert(tf.shape(x)[0] >= 0, [x])]):
        return relu(bias_add(x @ m.w, m.b))


@pytest.fixture(scope="module", params=[True, False], ids=["onednn", "no onednn"])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Oracle, Served]]:
    with Oracle(onednn=request.param) as oracle:
        yield oracle, Served(onednn=request.param)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One SavedModel with a signature for every case."""
    path = tmp_path_factory.mktemp("relus") / "model"
    module = Weights()
    signatures = {}
    for i, (shape, function) in enumerate(CASES.values()):
        call = tf.autograph.experimental.do_not_convert(lambda x, function=function: {"y": function(module, x)})
        signatures[f"case_{i}"] = tf.function(call).get_concrete_function(
            tf.TensorSpec([None, *shape], tf.float32, "x")
        )
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@pytest.mark.parametrize("case", CASES)
def test_nan_behind_a_relu(case: str, saved: Path, running: tuple[Oracle, Served]) -> None:
    oracle, served = running
    entry = f"case_{list(CASES).index(case)}"
    x = np.random.default_rng(1).normal(size=(4, *CASES[case][0])).astype(np.float32)
    x[0], x[1, ..., 0], x[2, ..., 1] = np.nan, np.nan, np.inf
    (answer,) = oracle.run(saved, ("serve",), entry, [{"x": x}])
    ours = port_tower(read(saved), entry, served=served).tower()({"x": x})["y"].numpy()
    assert np.array_equal(np.isnan(ours), np.isnan(answer["y"]))
    finite = np.isfinite(answer["y"])
    np.testing.assert_allclose(
        ours[finite], answer["y"][finite], rtol=1e-2, atol=1e-2
    )  # bfloat16; the others are tested elsewhere


def _relus(ported: PortedTower) -> list[dict[str, Any]]:
    return [dict(node.attrs) for node in walk(ported.spec.encoder) if node.op == "relu"]


# -- where no NaN can come ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Averages of embeddings before a dense layer: of the words that are there, 0/0 for none, and by a constant; and a feature."""
    module = Weights()
    module.words = tf.Variable(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))

    def dense(x: Any) -> dict[str, Any]:
        return {"y": relu(bias_add(x @ module.w, module.b))}

    def masked(ids: Any) -> dict[str, Any]:
        mask = tf.cast(ids != 0, tf.float32)[:, :, None]
        return dense(tf.reduce_sum(tf.gather(module.words, ids) * mask, 1) / tf.reduce_sum(mask, 1))

    def plain(ids: Any) -> dict[str, Any]:
        return dense(tf.reduce_sum(tf.gather(module.words, ids), 1) / 3.0)

    ids = tf.TensorSpec([None, 3], tf.int64, "ids")
    calls = {
        "masked": (masked, ids),
        "plain": (plain, ids),
        "feature": (dense, tf.TensorSpec([None, 4], tf.float32, "x")),
    }
    path = tmp_path_factory.mktemp("texts") / "model"
    convert = tf.autograph.experimental.do_not_convert
    signatures = {name: tf.function(convert(call)).get_concrete_function(spec) for name, (call, spec) in calls.items()}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@pytest.mark.parametrize(("entry", "marked"), [("masked", 1), ("plain", 0), ("feature", 1)])
def test_a_plain_relu_where_no_nan_can_come(entry: str, marked: int, texts: Path) -> None:
    ported = port_tower(read(texts), entry)
    assert [bool(attrs.get("no_nan")) for attrs in _relus(ported)] == [bool(marked)]
    assert ported.no_nan == marked
    assert port_tower(read(texts), entry, served=Served(onednn=False)).no_nan == 0
    assert ported.lifted["Linear"] == 1


def test_an_empty_text_is_finite_as_tensorflow_serves_it(texts: Path, oracle: Oracle) -> None:
    ids = np.array([[1, 2, 0], [0, 0, 0]])
    (answer,) = oracle.run(texts, ("serve",), "masked", [{"ids": ids}])
    ours = port_tower(read(texts), "masked").tower()({"ids": ids})["y"].numpy()
    assert np.array_equal(ours[1], np.zeros(4))
    np.testing.assert_allclose(ours, answer["y"], rtol=1e-6)  # a product of four terms
    kept = port_tower(read(texts), "masked", served=Served(onednn=False)).tower()({"ids": ids})["y"].numpy()
    assert np.isnan(kept[1]).all()


@pytest.mark.parametrize(("name", "plain"), [("relu", F.relu), ("relu6", F.relu6)])
def test_the_gradient_is_relus(name: str, plain: Callable[[Any], Any]) -> None:
    x = torch.tensor([-1.0, 0.0, 2.0, 6.0, 7.0, torch.nan], dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(OPS[name].function(x, no_nan=True).sum(), x)
    (theirs,) = torch.autograd.grad(plain(x)[:5].sum(), x)
    assert torch.equal(ours, theirs)


def test_the_model_card_and_the_config_say_which_was_taken(texts: Path, tmp_path: Path) -> None:
    for option, served in (("on", True), ("off", False)):
        out = tmp_path / option
        arguments = [
            "--query",
            str(texts),
            "--query-signature",
            "masked",
            "-o",
            str(out),
            "--no-verify",
            "--onednn",
            option,
        ]
        assert main(arguments) == 0
        assert ("oneDNN" in (out / "MODEL.md").read_text()) == served
        config = json.loads((out / "config.json").read_text())
        assert config["source"]["query"]["served"] == {"optimizer": True, "onednn": served}
        assert bool(np.isnan(torch_towers.load(out).encode_query([[0, 0, 0]])).any()) != served
