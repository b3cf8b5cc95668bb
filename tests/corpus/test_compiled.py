"""torch.compile captures encoders of whole towers as one graph, and torch.export with a dynamic batch; the numbers do not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from porting.samples import samples
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.producers import graphs, keras_towers, modules, tfrs_towers
from torch_towers.graph.graph import TensorSpec
from torch_towers.tower import Tower

TOWERS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "keras_3_numbers": (keras_towers.export(keras_towers.numbers), None),
    "tf_keras_lookups": (keras_towers.save(keras_towers.lookups), None),
    "keras_3_texts": (keras_towers.export(keras_towers.texts), None),
    "tfrs_query": (tfrs_towers.query_tower, None),
    "tfrs_candidate": (tfrs_towers.candidate_tower, None),
    "brute_force": (tfrs_towers.brute_force_strings, None),
    "vertex": (tfrs_towers.vertex_tower, None),
    "ranking": (tfrs_towers.ranking, None),
    "module": (modules.module, "query_model.__call__"),
    "merlin": (modules.merlin, None),
    "tf1": (graphs.variables, None),
    "feature_columns": (graphs.feature_columns, None),
}


def encoder_inputs(ported: PortedTower, tower: Tower) -> list[dict[str, Any]]:
    """The encoder's inputs for batches of several sizes, the largest last."""
    found = [sample.inputs for sample in samples.batches(ported.tf_graph, ported.model)]
    names = {spec.name for spec in ported.spec.encoder.inputs}
    return [{name: value for name, value in tower.preprocess(batch).items() if name in names} for batch in found[1:4]]


def free_axes(spec: TensorSpec, value: Any) -> Any:
    """The batch, which must stay free, and what else the specification leaves open: the longest text of the batch."""
    if not isinstance(value, Tensor):
        return torch.export.Dim.AUTO
    shape = spec.shape if spec.shape is not None else (None,) * value.ndim
    free = {axis: torch.export.Dim.AUTO for axis, size in enumerate(shape) if not isinstance(size, int)}
    if (
        0 in free and value.shape[0] > 1
    ):  # torch fixes an axis whose example is 0 or 1 long: a partition that no id fell into
        free[0] = torch.export.Dim.DYNAMIC
    return free


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert found[name].shape == value.shape, name
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-6, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("name", TOWERS)
def test_export_with_a_free_batch_size(name: str, saved: Callable[..., Path]) -> None:
    write, entry = TOWERS[name]
    ported = port_tower(read(saved(write)), entry)
    tower = ported.tower()
    batches = encoder_inputs(ported, tower)
    free = {spec.name: free_axes(spec, batches[-1][spec.name]) for spec in ported.spec.encoder.inputs}
    with torch.no_grad():
        program = torch.export.export(tower.encoder, (), kwargs=batches[-1], dynamic_shapes=free, strict=False).module()
        for batch in batches:
            assert_same(program(**batch), tower.encoder(**batch))


@pytest.mark.parametrize("name", ["keras_3_numbers", "tfrs_candidate", "module"])
def test_compile_whole(name: str, saved: Callable[..., Path]) -> None:
    write, entry = TOWERS[name]
    ported = port_tower(read(saved(write)), entry)
    tower = ported.tower()
    torch._dynamo.reset()
    # the graph is captured and traced through autograd as for any backend; what code a backend writes is not ours to test
    compiled = torch.compile(tower.encoder, fullgraph=True, backend="aot_eager")
    for batch in encoder_inputs(ported, tower):
        assert_same({key: value.detach() for key, value in compiled(**batch).items()}, tower.encoder(**batch))
