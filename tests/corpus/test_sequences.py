"""Towers over sequences: all parameters in layers, TensorFlow's numbers and gradients, free lengths, one compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.producers.sequence_towers import WRITERS
from tests.corpus.sources import assert_source

Ported = Callable[[str], PortedTower]


@pytest.fixture(scope="module")
def ported(tmp_path_factory: pytest.TempPathFactory) -> Ported:
    """The port of a tower by its producer, made once."""
    made: dict[str, PortedTower] = {}

    def get(producer: str) -> PortedTower:
        if producer not in made:
            path = tmp_path_factory.mktemp("sequences") / producer
            WRITERS[producer](path)
            made[producer] = port_tower(read(path))
        return made[producer]

    return get


def batch(producer: str, rows: int, steps: int) -> dict[str, np.ndarray]:
    """Histories that end early, of which the first is empty."""
    rng = np.random.default_rng(rows + steps)
    lengths = rng.integers(1, steps + 1, rows).astype(np.int32)
    lengths[:1] = 0
    if producer == "tensorflow_1":
        return {"x": rng.normal(0, 1, (rows, steps, 6)).astype(np.float32), "lengths": lengths}
    ids = rng.integers(1, 20, (rows, steps)).astype(np.int32)
    ids[np.arange(steps) >= lengths[:, None]] = 0
    return {"ids": ids, "known": rng.normal(0, 1, (rows, 4, 6)).astype(np.float32)}


def encoder_inputs(port: PortedTower, given: dict[str, np.ndarray]) -> dict[str, Any]:
    tower = port.tower()
    names = {spec.name for spec in tower.spec.encoder.inputs}
    return {name: value for name, value in tower.preprocess(dict(given)).items() if name in names}


@pytest.mark.parametrize("producer", WRITERS)
def test_every_parameter_is_in_a_layer(ported: Ported, producer: str) -> None:
    port = ported(producer)
    assert port.layer_share == 1.0
    assert not port.remaining["while_loop"]
    assert not port.remaining["softmax"]


@pytest.mark.parametrize("producer", WRITERS)
def test_equal_to_tensorflow(ported: Ported, producer: str, oracle: Oracle) -> None:
    report = verify_with_tensorflow(ported(producer), oracle, [batch(producer, 5, 7), batch(producer, 1, 3)])
    assert report.passed, "\n".join(report.lines())
    assert report.enough


@pytest.mark.parametrize("producer", WRITERS)
def test_gradients_in_float64_are_those_of_the_ops(ported: Ported, producer: str) -> None:
    """Those of the ops are TensorFlow's: the tests of each op compare them. Weights by their values, which are drawn."""
    port = ported(producer)
    assert port.without_lifts is not None
    given = batch(producer, 4, 5)
    found: list[Tensor] = []
    for one in (port, port.without_lifts()):
        tower = one.tower().to(torch.float64)
        inputs = {
            name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in encoder_inputs(one, given).items()
        }
        outputs = tower.encoder(**inputs)
        torch.stack([value.square().sum() for value in outputs.values()]).sum().backward()  # type: ignore[reportUnknownMemberType]
        weights = list(tower.encoder.parameters())
        assert all(weight.grad is not None for weight in weights)
        values = torch.cat([weight.detach().flatten() for weight in weights])
        gradients = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
        found.append(gradients[values.argsort(stable=True)])
    lifted, plain = found
    torch.testing.assert_close(lifted, plain, rtol=0, atol=1e-9 * float(plain.abs().max()))  # float64 in another order


@pytest.mark.parametrize("producer", ["keras", "tensorflow_1"])  # tf_keras gives the layers of keras
def test_export_with_free_lengths(ported: Ported, producer: str) -> None:
    port = ported(producer)
    encoder = port.tower().encoder
    given = encoder_inputs(port, batch(producer, 4, 6))
    free = {
        spec.name: {
            axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(spec.shape or ()) if not isinstance(size, int)
        }
        for spec in port.spec.encoder.inputs
    }
    with torch.no_grad():
        whole = torch.export.export(encoder, (), given, dynamic_shapes=free, strict=False).module()
        for rows, steps in ((2, 3), (5, 9)):
            other = encoder_inputs(port, batch(producer, rows, steps))
            for name, value in encoder(**other).items():
                # a loop of single steps, and torch's kernel for the whole sequence: float32 in another order
                torch.testing.assert_close(whole(**other)[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("producer", ["keras", "tensorflow_1"])  # tf_keras gives the layers of keras
def test_compile_whole(ported: Ported, producer: str) -> None:
    port = ported(producer)
    encoder = port.tower().encoder
    torch._dynamo.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")  # type: ignore[reportUnknownMemberType]
    given = encoder_inputs(port, batch(producer, 4, 6))
    with torch.no_grad():
        for name, value in encoder(**given).items():
            torch.testing.assert_close(compiled(**given)[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("producer", WRITERS)
def test_source_gives_what_the_port_gives(ported: Ported, producer: str, tmp_path: Path) -> None:
    assert_source(ported(producer), tmp_path, producer)
