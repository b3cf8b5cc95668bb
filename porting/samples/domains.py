"""Infers the domain of the inputs of a flat TF graph from how their values are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from porting import converters as _converters  # noqa: F401  (fills CONVERTERS)
from porting.samples import domain_rules as _rules  # noqa: F401  (fills the follower's tables)
from porting.samples.follower import Array, Domain, Follower, Trace
from porting.saved_model import SavedModel
from torch_towers.graph.graph import Graph


@dataclass
class Domains:
    """The domain of every input element: `ids[name]` has the elements' numbers, `of[number]` the domains."""

    ids: Mapping[str, Array]
    of: Sequence[Domain]


def infer(graph: Graph, model: SavedModel) -> Domains:
    """The domains of the inputs of one entry's flat graph. The ids of an input have its shape; dynamic axes have length
    1."""
    follower = Follower(model)
    ids = {spec.name: follower.number(spec) for spec in graph.inputs}
    outputs = follower.run(graph, [follower.start(ids[spec.name], spec.shape) for spec in graph.inputs])
    for value in outputs:
        if isinstance(value, Trace):
            follower.ends(value)
    return Domains(ids, follower.domains)
