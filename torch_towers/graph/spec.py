"""TowerSpec: one tower as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_towers.errors import CheckpointError
from torch_towers.graph.graph import Graph, TensorSpec, node_of
from torch_towers.graph.narrow import upstream


@dataclass(frozen=True, slots=True)
class Padding:
    """Where rows of the encoder's inputs end: after the last position at which the input `[rows, length]` differs from
    `value`.

    Positions after the end do not affect `outputs`, so the inputs `along` `[rows, length, ...]` may be truncated there.
    """

    input: str
    value: float
    along: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TowerSpec:
    """The three graphs of a tower and its signature.

    `preprocess` takes the signature's inputs (by name, or in order if a name is not valid in a graph) and returns the
    encoder's inputs by name. `encoder` handles tensors only. `postprocess` exists if a string or table op follows the
    tensors; it takes outputs of both by name. `embedding` is the output that `encode_*` returns; None means the only
    output, or the only float output of rank 2. `defaults` maps optional inputs to the tensor or vocabulary in the store
    that replaces them. `padding` says where rows may be truncated.
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
        """The name of each input in `preprocess`, if the names differ: then inputs correspond by position. Errors:
        `CheckpointError`."""
        outer, inner = [item.name for item in self.inputs], [item.name for item in self.preprocess.inputs]
        if set(outer) == set(inner):
            return {}
        if len(outer) != len(inner):
            raise CheckpointError(f"the signature has {len(outer)} inputs, the preprocessing {len(inner)}")
        return dict(zip(outer, inner, strict=True))

    def needs(self, output: str) -> set[str]:
        """The inputs of `preprocess` that an output depends on, apart from checks."""
        wanted = {output}
        for graph in (self.postprocess, self.encoder, self.preprocess):
            if graph is None:
                continue
            found = upstream(graph, (node_of(ref) for name, ref in graph.outputs.items() if name in wanted))
            inputs = {spec.name for spec in graph.inputs}
            wanted = (wanted - graph.outputs.keys()) | (found & inputs)
        return wanted

    def check(self) -> None:
        """The three graphs fit together, and every output of the signature comes out of one. Errors: `CheckpointError`."""
        self._check_graphs()
        names = {item.name for item in self.outputs}
        if self.embedding is not None and self.embedding not in names:
            raise CheckpointError(f"the embedding {self.embedding!r} is not an output of the signature")
        for each in self.padding:
            self._check_padding(each)
        if unknown := sorted(self.defaults.keys() - {item.name for item in self.inputs}):
            raise CheckpointError(f"{unknown[0]!r} has a default, but is not an input of the signature")

    def _check_graphs(self) -> None:
        given = set(self.preprocess.outputs)
        if missing := sorted({item.name for item in self.encoder.inputs} - given):
            raise CheckpointError(f"the encoder takes {missing[0]!r}, which the preprocessing does not produce")
        given |= set(self.encoder.outputs)
        if self.postprocess is not None:
            if missing := sorted({item.name for item in self.postprocess.inputs} - given):
                raise CheckpointError(f"the postprocessing takes {missing[0]!r}, which nothing gives")
            given |= set(self.postprocess.outputs)
        else:
            given = set(self.encoder.outputs)
        if missing := sorted({item.name for item in self.outputs} - given):
            raise CheckpointError(f"the output {missing[0]!r} of the signature: no graph produces it")

    def _check_padding(self, padding: Padding) -> None:
        ranks = {item.name: len(item.shape or ()) for item in self.encoder.inputs}
        wrong = [name for name in (padding.input, *padding.along) if ranks.get(name, 0) < 2]
        wrong += [name for name in padding.outputs if name not in self.encoder.outputs]
        if wrong or padding.input not in padding.along:
            name = (wrong or [padding.input])[0]
            raise CheckpointError(f"the padding of {padding.input!r} names {name!r}, which has no rows to truncate")
