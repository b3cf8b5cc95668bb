"""A ported tower trains: the gradient of every weight matches TensorFlow's, and frozen weights stay frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.producers import keras_towers, modules, tfrs_towers
from tests.witness import as_array, tf
from torch_towers.parity.answers import answer

RNG = np.random.default_rng(21)
X = {name: RNG.normal(size=(6, 8)).astype(np.float32) for name in ("x", "y")}
BATCHES: dict[str, tuple[Callable[[Path], None], Mapping[str, Any]]] = {
    "keras_3": (keras_towers.export(keras_towers.numbers), {
        **X, "steps": RNG.normal(size=(6, 5, 8)).astype(np.float32), "ids": RNG.integers(0, 9, (6, 5)).astype(np.int32)}),
    "tf_keras": (keras_towers.save_plain(keras_towers.numbers), {
        **X, "steps": RNG.normal(size=(6, 5, 8)).astype(np.float32), "ids": RNG.integers(0, 9, (6, 5)).astype(np.int32)}),
    "tfrs_query": (tfrs_towers.query_tower, {
        "user_id": ["42", "7", "nobody", "42", ""], "timestamp": np.int64([874724710, 879024327, 893286638, 5, 2**40])}),
    "tfrs_candidate": (tfrs_towers.candidate_tower, {"input_1": ["Toy Story (1995)", "unknown", "Shorty get four", "GoldenEye (1995)"]}),
    "vertex": (tfrs_towers.vertex_tower, {
        "artist": ["x", "y", ""], "genres": [["a", "", "b", "c", "a"]] * 3, "name": ["The blue sky", "", "blue"],
        "duration": np.float32([0, 2.5e5, 1e7])}),
    "merlin": (modules.merlin, {
        "genres__values": np.array([3, 5, 3, 29, 0, 7, 7]), "genres__offsets": np.array([0, 2, 2, 5, 7]),
        "age": np.array([[0.5], [1.0], [-2.0], [0.0]], np.float32)}),
    "ranking": (tfrs_towers.ranking, {"user_id": ["42", "nobody"], "movie_title": ["Four Rooms (1995)", "four"]}),
}  # fmt: skip


def loss_weights(shape: tuple[int, ...], index: int) -> np.ndarray[Any, Any]:
    """Fixed weights, so that every output element has its own gradient."""
    return np.random.default_rng(index).normal(size=shape).astype(np.float32)


def theirs(path: Path, batch: Mapping[str, np.ndarray[Any, Any]]) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
    """TensorFlow's loss, and its gradients by the names of the variables."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    dtypes = {name: spec.dtype for name, spec in signature.structured_input_signature[1].items()}
    with tf.GradientTape() as tape:
        outputs = signature(**{name: tf.constant(value, dtypes[name]) for name, value in batch.items()})
        floats = sorted(name for name, value in outputs.items() if value.dtype == tf.float32)
        loss = tf.add_n(
            [
                tf.reduce_sum(outputs[name] * loss_weights(tuple(outputs[name].shape), i))
                for i, name in enumerate(floats)
            ]
        )
    variables = [variable for variable in signature.variables if variable.trainable]
    found = zip(variables, tape.gradient(loss, variables), strict=True)
    return float(loss), {
        variable.name.removesuffix(":0"): tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in found
        if gradient is not None
    }


def ours(
    ported: PortedTower, batch: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
    """The port's loss, and its gradients by the names of its weights."""
    tower = ported.tower()
    tensors = {
        name: value
        for name, value in tower.preprocess(dict(batch)).items()
        if name in {spec.name for spec in tower.spec.encoder.inputs}
    }
    outputs = tower.encoder(**tensors)
    floats = sorted(spec.name for spec in tower.outputs if spec.dtype == "float32")
    loss = torch.stack([
        (outputs[name] * torch.from_numpy(loss_weights(tuple(outputs[name].shape), i))).sum() for i, name in enumerate(floats)
    ]).sum()  # fmt: skip
    loss.backward()
    return loss.item(), {
        name: value.grad.numpy() for name, value in tower.encoder.named_parameters() if value.grad is not None
    }


def matched(name: str, found: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The port's gradient of the variable `name`: "deep/cross/dense/kernel" is "deep.cross.dense.weight", turned round.

    A variable that nothing is the scope of is named after itself: "mean_table" is "mean_table.weight", "kernel" "weight".
    """
    scope, _, last = name.replace("/", ".").rpartition(".")
    word = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}.get(last, last)
    named = (
        f"{scope}.{word}" if scope else word,
        f"linear.{word}",
        f"embedding.{word}",
        f"{word}.weight",
        f"embedding.{last}",
    )
    gradient = next((found[name] for name in named if name in found), None)
    assert gradient is not None, f"{name!r} is none of {', '.join(found)}"
    return gradient.T if last == "kernel" else gradient


@pytest.mark.parametrize("name", BATCHES)
def test_gradients_are_tensorflows(name: str, saved: Callable[..., Path]) -> None:
    write, values = BATCHES[name]
    path, batch = saved(write), {key: as_array(value) for key, value in values.items()}
    loss, expected = theirs(path, batch)
    our_loss, found = ours(port_tower(read(path)), batch)
    assert our_loss == pytest.approx(loss, rel=1e-5, abs=1e-4)
    assert len(found) == len(expected), f"{sorted(found)} for {sorted(expected)}"
    for variable, gradient in expected.items():
        mine = matched(variable, found)
        assert mine.shape == gradient.shape, variable
        # a sum over the batch in another order: 1e-5 of the largest, some hundred units in its last place
        bound = 1e-5 * float(np.abs(gradient).max(initial=0.0)) + 1e-6
        np.testing.assert_allclose(mine, gradient, rtol=0, atol=bound, err_msg=variable)


def test_a_step_of_training_changes_what_comes_out(saved: Callable[..., Path]) -> None:
    write, values = BATCHES["tfrs_query"]
    tower = port_tower(read(saved(write))).tower()
    batch = {key: as_array(value) for key, value in values.items()}
    before = answer(tower, batch)
    optimizer = torch.optim.SGD(tower.encoder.parameters(), lr=0.1)
    tower.encoder(**tower.preprocess(batch))["output_1"].square().sum().backward()
    optimizer.step()
    after = answer(tower, batch)
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert not np.array_equal(before["output_1"], after["output_1"])


@pytest.mark.parametrize("lifts", [True, False], ids=["lifted", "op_by_op"])
def test_what_was_frozen_stays_frozen(lifts: bool, saved: Callable[..., Path]) -> None:
    tower = port_tower(read(saved(modules.module)), "query_model.__call__", lifts=lifts).tower()
    trained = {
        name.rpartition(".")[0] or name for name, value in tower.encoder.named_parameters() if value.requires_grad
    }
    assert not any("table" in name for name in trained), trained
    assert "scale" in trained
    assert any("table" in name for name in tower.encoder.state_dict())


@pytest.mark.parametrize("lifts", [True, False], ids=["lifted", "op_by_op"])
def test_moving_averages_are_buffers(lifts: bool, saved: Callable[..., Path]) -> None:
    encoder = port_tower(read(saved(BATCHES["keras_3"][0])), lifts=lifts).tower().encoder
    assert sum("batch_norm" in name for name, _ in encoder.named_buffers()) == 2
    assert sum("batch_norm" in name for name, _ in encoder.named_parameters()) == 2
