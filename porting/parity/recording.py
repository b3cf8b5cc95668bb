"""Records TensorFlow's answers for a SavedModel, for a comparison on a machine without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from porting.errors import PortingError
from porting.flat_graph.flatten import flatten
from porting.parity.comparison import verify_with_tensorflow
from porting.parity.evidence import gather, given
from porting.parity.oracle import Oracle
from porting.samples.user_inputs import read_examples
from porting.saved_model import SavedModel
from porting.tower import port_tower
from torch_towers.checkpoint.folder import written_whole
from torch_towers.parity.recorded import Recorded, pack


def record(
    model: SavedModel, entry: str, oracle: Oracle, inputs: Path | None = None, *, without_dropout: bool = False
) -> list[Recorded]:
    """The answers for inputs generated from the graph, or for those of a user's file `inputs`.

    If the entry can be ported here, its inner ids are recorded too. Errors: `PortingError`.
    """
    graph = flatten(model.graph(entry), model.functions)
    try:
        ported = port_tower(model, entry, split_index=True, without_dropout=without_dropout)
    except PortingError:  # another machine, with another version, may be able to port it
        examples = [] if inputs is None else [read_examples(inputs, graph.inputs)]
        where = (model.path, model.tags, entry)
        found = given(lambda asked: oracle.run(*where, asked), examples) if examples else gather(
            lambda asked: oracle.run(*where, asked), graph, model, 0
        )  # fmt: skip
        return [Recorded(s.inputs, a, kind=s.kind) for s, a in zip(found.samples, found.answers, strict=True)]
    examples = [] if inputs is None else [read_examples(inputs, ported.spec.inputs)]
    return verify_with_tensorflow(ported, oracle, examples).recorded


def write(path: Path, towers: Mapping[str, Sequence[Recorded]]) -> None:
    """Writes the file atomically."""
    with written_whole(path) as partial:
        partial.write_bytes(pack(towers))
