"""The reference: a ported tower that computes everything in float64, from the same weights and the same ids."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from porting.tower import PortedTower
from torch_towers.graph.dtypes import DTYPE_NAMES, FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import Graph
from torch_towers.program.precision import float_graph
from torch_towers.program.program import graphs, modules, used_names
from torch_towers.tower import Tower

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def reference(ported: PortedTower) -> Tower:
    """The tower with float64 for every float of its encoder: what TensorFlow holds as float16 or bfloat16 is not rounded either.

    The preprocessing stays as it is: what it gives decides which ids are looked up.
    """
    spec = ported.spec
    around = [graph for graph in (spec.preprocess, spec.postprocess) if graph is not None]
    encoder_only = used_names(spec.encoder).difference(*map(used_names, around))
    store = {
        name: value.float()
        if name in encoder_only and isinstance(value, Tensor) and value.dtype in _HALVES.values()
        else value
        for name, value in ported.store.items()
    }
    spec = replace(spec, encoder=float_graph(spec.encoder, "float32", of=_HALVES))
    return Tower(spec, store, frozen=ported.frozen).to(dtype=torch.float64)


def coarsest(ported: PortedTower) -> str:
    """The float of the largest rounding error that the encoder computes in: "float64" where it is that all through."""
    found = _said(ported.spec.encoder)
    for name in used_names(ported.spec.encoder):
        value = ported.store[name]
        found.add(DTYPE_NAMES[value.dtype] if isinstance(value, Tensor) else "string")
    return max(found & set(FLOATS), key=lambda name: torch.finfo(TORCH_DTYPES[name]).eps, default="float32")


def _said(graph: Graph) -> set[str]:
    """The dtypes that a graph and those inside it name."""
    attrs = [node.attrs for one in graphs(graph) for node in one.nodes if node.op not in ("parameter", "constant")]
    values = [value for each in (*attrs, *(spec.args for spec in modules(graph).values())) for value in each.values()]
    items = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    return {spec.dtype for spec in graph.inputs} | {item for item in items if isinstance(item, str)}
