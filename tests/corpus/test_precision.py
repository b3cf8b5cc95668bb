"""Towers at other precisions: every tower of the corpus at each dtype, and towers that TensorFlow itself runs in float64 or halves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.parity.precision import precisions
from porting.samples import samples
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.catalog import REFUSE, SIDE_EFFECTS, catalog, entry_of
from tests.corpus.producers.towers import TOWERS, Built
from tests.corpus.test_producers import ported
from tests.corpus.test_training import matched
from tests.witness import as_array, tf
from torch_towers.errors import InputError
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.parity.recorded import of_reference

from .producers.precision_towers import WRITERS

# How far half of the values of a float64 run are at most from those of the float32 one, relative to the largest. Single ones may be
# further: a sigmoid of a logit that is a small difference of large numbers.
NEAR = 1e-4


def runs_at_each_dtype(port: PortedTower, batches: list[dict[str, Any]]) -> None:
    """Runs the first accepted batch at each dtype: float32 outputs change to it, others keep their own."""
    expected: dict[str, Any] = {}
    tower = port.tower()
    taken: dict[str, Any] = {}
    for batch in batches:
        with contextlib.suppress(InputError):  # an id that was made up
            expected, taken = tower(dict(batch)), dict(batch)
            break
    assert expected, "no batch was taken"
    for name in FLOATS:
        dtype = TORCH_DTYPES[name]
        tower = port.tower().to(dtype)
        try:
            found = tower(taken)
        except InputError as error:
            if name == "float16" and "does not fit float16" in str(error):
                continue
            raise
        for key, wanted in expected.items():
            if not isinstance(wanted, Tensor):
                assert found[key].dtype == object
                continue
            value = found[key]
            assert isinstance(value, Tensor)
            assert value.dtype == (dtype if wanted.dtype == torch.float32 else wanted.dtype), key
            assert value.shape == wanted.shape
            kept = wanted.isfinite() if wanted.is_floating_point() else torch.zeros_like(wanted, dtype=torch.bool)
            if dtype == torch.float64 and kept.any():
                apart = (value[kept] - wanted[kept].double()).abs().median()
                assert apart <= NEAR * wanted[kept].abs().max() + 1e-37, key  # float32 holds no less


@pytest.mark.parametrize("built", TOWERS, ids=str)
def test_every_tower_at_each_dtype(built: Built, saved: Callable[..., Path]) -> None:
    port = ported(built, saved)
    given = [{name: as_array(value) for name, value in batch.items()} for batch in built.batches]
    made = samples.batches(port.tf_graph, port.model)
    runs_at_each_dtype(port, given or [sample.inputs for sample in made])


@pytest.mark.parametrize("recorded", catalog(), ids=lambda recorded: recorded.name)
def test_every_recorded_tower_at_each_dtype(recorded: Any) -> None:
    for signature in recorded.signatures:
        if recorded.group == REFUSE or (recorded.name, signature) in SIDE_EFFECTS:
            continue
        port = port_tower(read(recorded.path), entry_of(signature) or None)
        names = [spec.name for spec in port.tf_graph.inputs]
        (batch,) = of_reference(recorded.arrays(), port.entry, names, list(port.tf_graph.outputs))
        runs_at_each_dtype(port, [batch.inputs])


# -- towers that TensorFlow runs at another precision ----------------------------------------------------------------------


@pytest.mark.parametrize("lifts", [True, False], ids=["lifted", "op_by_op"])
@pytest.mark.parametrize("keras, policy", WRITERS)
def test_a_policy(keras: str, policy: str, lifts: bool, saved: Callable[..., Path], oracle: Oracle) -> None:
    """TensorFlow's casts are kept: against a float64 run without halves, the port's error is no larger than TensorFlow's own."""
    port = port_tower(read(saved(WRITERS[keras, policy])), lifts=lifts)
    assert policy.removeprefix("mixed_") in precisions(port.tf_graph, port.model.functions).values()
    report = verify_with_tensorflow(port, oracle)
    assert report.passed, "\n".join(report.lines())
    for output in report.outputs.values():
        if policy == "float64":
            assert output.worst <= 1e-12 * max(output.scale, 1.0)
        else:
            assert output.error <= output.tensorflow_error or output.error <= 2 * output.ulp
            assert output.error > 0 or output.name == "layer_norm"  # the reference has none of their rounding


@pytest.mark.parametrize("keras", ["keras", "tf_keras"])
def test_gradients_in_float64(keras: str, saved: Callable[..., Path]) -> None:
    path = saved(WRITERS[keras, "float64"])
    rng = np.random.default_rng(3)
    batch = {"x": rng.normal(size=(6, 8)), "ids": rng.integers(0, 9, (6, 5)).astype(np.int32)}
    loaded = tf.saved_model.load(str(path))  # held: its variables go with it
    signature = loaded.signatures["serving_default"]
    with tf.GradientTape() as tape:
        outputs = signature(**{name: tf.constant(value) for name, value in batch.items()})
        names = sorted(outputs)
        loss = tf.add_n([tf.reduce_sum(tf.square(outputs[name])) for name in names])
    variables = [variable for variable in signature.variables if variable.trainable]
    gradients = tape.gradient(loss, variables)
    tower = port_tower(read(path)).tower().train()
    found = tower(batch)
    torch.stack([found[name].square().sum() for name in names]).sum().backward()  # type: ignore[union-attr]
    for name in names:
        assert np.abs(found[name].detach().numpy() - outputs[name].numpy()).max() <= 1e-12 * np.abs(outputs[name]).max()  # type: ignore[union-attr]
    ours = {name: weight.grad.numpy() for name, weight in tower.encoder.named_parameters() if weight.grad is not None}
    compared = 0
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            theirs, mine = tf.convert_to_tensor(gradient).numpy(), matched(variable.name.removesuffix(":0"), ours)
            assert np.abs(mine - theirs).max() <= 1e-12 * np.abs(theirs).max(), variable.name
            compared += 1
    assert compared >= 10
