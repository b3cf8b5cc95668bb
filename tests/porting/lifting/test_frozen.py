"""Frozen graphs: their constants are weights of layers, which do not train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.witness import tf
from torch_towers.parity.answers import answer

tf1 = tf.compat.v1
RNG = np.random.default_rng(4)
IMAGES, IDS = RNG.normal(size=(5, 9, 8, 3)).astype(np.float32), np.int64([[0, 6], [1, 1], [5, 2], [3, 3], [6, 0]])


def _draw(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def _network(images: Any, ids: Any) -> Any:
    """With variables of TensorFlow 1: convolutions, normalization, a table, dense layers."""
    get = tf1.get_variable
    x = tf.nn.conv2d(images, get("first/kernel", initializer=_draw(3, 3, 3, 4)), 2, "SAME") + get(
        "first/bias", initializer=_draw(4)
    )
    statistics = [
        get(f"norm/{name}", initializer=np.abs(_draw(4)) + 0.1) for name in ("gamma", "beta", "mean", "variance")
    ]
    x = tf.nn.relu(tf1.nn.fused_batch_norm(x, *statistics, is_training=False)[0])
    turned = tf.transpose(x, (0, 3, 1, 2))  # as converters of other formats write convolutions
    for name in ("second", "third"):
        y = tf.nn.conv2d(
            tf.transpose(turned, (0, 2, 3, 1)),
            get(f"{name}/kernel", initializer=_draw(3, 3, 4, 4)),
            1,
            "VALID" if name == "third" else "SAME",
        )
        turned = tf.nn.relu(tf.transpose(tf1.nn.bias_add(y, get(f"{name}/bias", initializer=_draw(4))), (0, 3, 1, 2)))
    pooled = tf.reduce_mean(turned, (2, 3))
    found = tf.reduce_mean(tf.gather(get("table", initializer=_draw(7, 4)), ids), 1)
    both = tf.concat([pooled, found * 3.0 + np.float32([1, 2, 3, 4])], 1)
    return tf.tanh(both @ get("dense/kernel", initializer=_draw(8, 5)) + get("dense/bias", initializer=_draw(5)))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frozen") / "model"
    with tf1.Graph().as_default(), tf1.Session() as session:
        images, ids = (
            tf1.placeholder(tf.float32, [None, None, None, 3], "images"),
            tf1.placeholder(tf.int64, [None, 2], "ids"),
        )
        output = tf.identity(_network(images, ids), "embedding")
        session.run(tf1.global_variables_initializer())
        graph = tf1.graph_util.convert_variables_to_constants(session, session.graph_def, [output.op.name])
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.import_graph_def(graph, name="")
        tensors = {name: session.graph.get_tensor_by_name(f"{name}:0") for name in ("images", "ids", "embedding")}
        embedding = {"embedding": tensors.pop("embedding")}
        tf1.saved_model.simple_save(session, str(path), tensors, embedding)
    return path


@pytest.fixture(scope="module")
def ported(frozen: Path) -> PortedTower:
    return port_tower(read(frozen))


def test_constants_are_weights_of_layers(ported: PortedTower) -> None:
    layers = {name: spec.type for name, spec in ported.spec.encoder.modules.items()}
    assert layers == {
        "first": "Conv2d", "norm": "BatchNorm", "second": "Conv2d", "third": "Conv2d", "table": "Embedding", "dense": "Linear",
        **{name: kind for name, kind in layers.items() if kind == "GlobalAveragePooling"},
    }  # fmt: skip
    assert [
        ported.spec.encoder.modules[name].args.get("channels_last", True) for name in ("first", "second", "third")
    ] == [True, False, False]
    left = [node.attrs["tensor"] for node in ported.spec.encoder.nodes if node.op in ("parameter", "constant")]
    assert len(left) == 1, "what is added to no product"


def test_they_are_stored_and_do_not_train(ported: PortedTower) -> None:
    encoder = ported.tower().encoder
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert encoder.state_dict().keys() >= {"first.weight", "norm.running_mean", "table.weight", "dense.bias"}


def test_values_are_tensorflows(frozen: Path, ported: PortedTower) -> None:
    serve = tf.saved_model.load(str(frozen)).signatures["serving_default"]
    expected = serve(images=tf.constant(IMAGES), ids=tf.constant(IDS))["embedding"].numpy()
    found = answer(ported.tower(), {"images": IMAGES, "ids": IDS})
    assert isinstance(found, dict)
    np.testing.assert_allclose(found["embedding"], expected, rtol=0, atol=2e-6)


def test_constants_beside_variables_stay(tmp_path: Path) -> None:
    module = tf.Module()
    module.scale, kernel = tf.Variable(2.0), _draw(4, 4)
    serve = tf.function(
        lambda x: {"y": (x * module.scale) @ kernel}, input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    tower = port_tower(read(tmp_path / "model")).tower()
    assert not tower.spec.encoder.modules and len(list(tower.encoder.parameters())) == 1
    assert torch.is_tensor(tower.encoder(x=torch.ones(2, 4))["y"])
