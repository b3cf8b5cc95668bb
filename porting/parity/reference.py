"""The float64 reference: a ported tower that computes everything in float64, from the same weights and ids."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from porting.tower import PortedTower
from torch_towers.program.precision import float_graph
from torch_towers.program.program import used_names
from torch_towers.tower import Tower

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def reference(ported: PortedTower) -> Tower:
    """The tower with float64 for every float of its encoder, including float16 and bfloat16.

    The preprocessing does not change: it decides which ids are looked up.
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
