"""TowerSpec: one tower as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_towers.errors import CheckpointError
from torch_towers.graph.graph import Graph, TensorSpec, node_of, references


@dataclass(frozen=True, slots=True)
class Padding:
    """Where rows of the encoder's inputs end: behind the last place at which the input `[rows, length]` is not `value`.

    What stands behind the end changes none of `outputs`, so that the inputs `along` `[rows, length, ...]` may be cut there.
    """

    input: str
    value: float
    along: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TowerSpec:
    """The three graphs of a tower and its signature.

    `preprocess` takes the signature's inputs (by their names, or in their order where a name cannot be a graph's) and gives
    what the encoder takes, by the encoder's names. `encoder` is tensors only. `postprocess`, where a string or table comes after
    the tensors, takes outputs of both by their names. `embedding` is the output that `encode_*` gives, None: the only output, or the
    only float output of rank 2. `defaults` names, for inputs that may be left out, the tensor or vocabulary in the store that stands in. `padding` says where rows may be cut.
    """

    preprocess: Graph
    encoder: Graph
    postprocess: Graph | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    embedding: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])
    padding: tuple[Padding, ...] = ()

    def renamed(self) -> dict[str, str]:
        """The name of each input in `preprocess`, where names differ: then they correspond by position. Errors: `CheckpointError`."""
        outer, inner = [item.name for item in self.inputs], [item.name for item in self.preprocess.inputs]
        if set(outer) == set(inner):
            return {}
        if len(outer) != len(inner):
            raise CheckpointError(f"the signature has {len(outer)} inputs, the preprocessing {len(inner)}")
        return dict(zip(outer, inner, strict=True))

    def needs(self, output: str) -> set[str]:
        """The inputs of `preprocess` that an output is computed from; what a check refuses apart from that does not count."""
        wanted = {output}
        for graph in (self.postprocess, self.encoder, self.preprocess):
            if graph is None:
                continue
            found = {node_of(ref) for name, ref in graph.outputs.items() if name in wanted}
            for node in reversed(graph.nodes):
                if node.name in found:
                    found |= {node_of(ref) for ref in references(node.inputs)}
            inputs = {spec.name for spec in graph.inputs}
            wanted = (wanted - graph.outputs.keys()) | (found & inputs)
        return wanted
