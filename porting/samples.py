"""Samples: inputs made from the graph itself, on which port and TensorFlow are compared.

Keys of the tables that an input reaches and unknown ones, empty and non-ASCII strings, bucket edges, ids at both ends of a
table, zeros and extremes, at several batch sizes, one of them of rows that TensorFlow may refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from porting.components import component_of
from porting.convert import all_nodes
from porting.errors import PortingError
from porting.sample_images import sample_images
from porting.saved_model import SavedModel
from porting.serialized_examples import serialized_examples
from torch_towers.graph import Graph, Node, TensorSpec, node_of

BATCH_SIZES = (1, 2, 7, 33)
LARGE = 10_000  # elements of one row: from here on (images, sound) batches are small
LENGTH = 5  # elements along a free inner axis
_STRINGS = [b"", b" ", b"a", b"the quick brown fox", b"Hello, World!", "naïve café Ünïcødé".encode(), "日本語 テスト".encode(),
            "Ωmega ΣΊΣΥΦΟΣ".encode(), b"1,000.5", b"a_b-c", b"\xff\xfe bad utf-8", b"tab\tnew\nline", b"UPPER lower", b"42", "😀 emoji".encode(),
            b"x" * 70, b"  two  spaces  "]  # fmt: skip
_FLOATS = [0.0, 1.0, -1.0, 0.5, 3.25, -2.75, 1e-3, 100.0, -1e3, 1e4]


@dataclass(frozen=True, slots=True)
class Sample:
    """One batch of inputs, by name. "domain": such as the tower was made for; "edge": at the ends of that and beyond it."""

    inputs: dict[str, np.ndarray[Any, Any]]
    kind: Literal["domain", "edge"]


@dataclass
class _Reach:
    """What the values of one input meet on their way through the graph."""

    tables: list[str] = field(default_factory=list[str])
    edges: list[float] = field(default_factory=list[float])
    rows: list[int] = field(default_factory=list[int])  # sizes of the tables that its values index
    decoded: bool = False  # as an image, or inside a loop, where an image is what is decoded one by one


def batches(graph: Graph, model: SavedModel, *, seed: int = 0) -> list[Sample]:
    """Batches of inputs for the flat TF graph of one entry: of values that it knows, then of those mixed with all others."""
    rng = np.random.default_rng(seed)
    reaches = {spec.name: _reach(spec.name, graph, model) for spec in graph.inputs}
    one, several = serialized_examples(graph, values=1), serialized_examples(graph, values=2)
    decoders = {node.op for node in all_nodes(graph, model.functions) if node.op in DECODERS}
    images = sample_images(decoders) if decoders else []
    for name in (spec.name for spec in graph.inputs if spec.dtype == "string" and reaches[spec.name].decoded):
        if images:
            one[name] = several[name] = images
    pools = [
        {spec.name: records.get(spec.name) or pool(spec, reaches[spec.name], model) for spec in graph.inputs}
        for pool, records in ((_known, one), (_known_and_unknown, several))
    ]
    row = sum(_count(spec, 1) for spec in graph.inputs)
    sizes = BATCH_SIZES if row < LARGE else (1, 3)
    kinds: tuple[Literal["domain"], Literal["edge"]] = ("domain", "edge")
    return [
        Sample(_batch(graph.inputs, pool, size, rng), kind)
        for kind, pool in zip(kinds, pools, strict=True)
        for size in sizes
    ]


def _batch(specs: Sequence[TensorSpec], pools: Mapping[str, list[Any]], size: int, rng: Any) -> dict[str, Any]:
    """One batch. The parts of a sparse or ragged value fit one another: two values in every row."""
    names = {spec.name for spec in specs}
    batch: dict[str, Any] = {}
    for spec in specs:
        part = component_of(spec.name, names)
        if part in ("values", None):
            batch[spec.name] = _draw(spec, pools[spec.name], size if part is None else 2 * size, rng)
        else:
            batch[spec.name] = _structure(part, size).astype(spec.dtype)
    return batch


def _structure(part: str, size: int) -> np.ndarray[Any, Any]:
    """The row splits, indices or dense shape of `size` rows of two values."""
    if part == "splits":
        return np.arange(0, 2 * size + 1, 2)
    if part == "indices":
        return np.stack([np.arange(2 * size) // 2, np.arange(2 * size) % 2], -1)
    return np.array([size, 2])


def _known(spec: TensorSpec, reach: _Reach, model: SavedModel) -> list[Any]:
    """Keys of the tables that an input reaches; where it reaches none, everything worth trying."""
    keys = [key for name in reach.tables for key in _some_keys(model, name)]
    if spec.dtype == "string":
        found = [key if isinstance(key, bytes) else str(key).encode() for key in keys]
        return found + [b" ".join(found[i : i + 4]) for i in range(0, min(len(found), 40), 4)] or _STRINGS
    if spec.dtype == "bool":
        return [False, True]
    if reach.rows and not spec.dtype.startswith("float"):
        top = min(reach.rows)
        return sorted({0, 1 % top, top // 2, top - 1, *(int(key) for key in keys if 0 <= key < top)})
    return [key for key in keys if not isinstance(key, bytes)] or _numbers(spec, reach)


def _known_and_unknown(spec: TensorSpec, reach: _Reach, model: SavedModel) -> list[Any]:
    """Everything worth trying for one input. Ids that index a table stay inside of it: outside all is refused."""
    known = _known(spec, reach, model)
    if spec.dtype in ("string", "bool"):
        return known + (_STRINGS if spec.dtype == "string" and known is not _STRINGS else [])
    return known if reach.rows and not spec.dtype.startswith("float") else [*known, *_numbers(spec, reach)]


def _numbers(spec: TensorSpec, reach: _Reach) -> list[Any]:
    """Bucket edges and their neighbours, zeros, small and large numbers."""
    edges = [
        near for edge in reach.edges for near in (edge, np.nextafter(np.float32(edge), np.float32(-np.inf)), edge + 1)
    ]
    if spec.dtype.startswith("float"):
        return [*edges, *_FLOATS]
    return [*(int(edge) for edge in edges), 0, 1, 2, 3, 7, 42]


def _some_keys(model: SavedModel, name: str, count: int = 40) -> list[Any]:
    keys = model.tables[name].keys.reshape(-1)
    step = max(1, len(keys) // count)
    return keys[::step][:count].tolist()


def _draw(spec: TensorSpec, pool: list[Any], size: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    shape, count = _shape(spec, size), _count(spec, size)
    picks = rng.permutation(len(pool))[: min(count, len(pool))]
    picks = np.concatenate([picks, rng.integers(0, len(pool), count - len(picks))])
    if spec.dtype == "string":
        flat = np.empty(count, object)
        flat[:] = [pool[i] for i in picks]
        return flat.reshape(shape)
    return np.asarray([pool[i] for i in picks]).astype(spec.dtype).reshape(shape)


def _shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(_axis(axis, i, batch) for i, axis in enumerate(spec.shape if spec.shape is not None else (None,)))


def _count(spec: TensorSpec, batch: int) -> int:
    return int(np.prod(_shape(spec, batch)))


def _axis(size: Any, index: int, batch: int) -> int:
    if isinstance(size, int):
        return size
    return batch if index == 0 else LENGTH


def _reach(name: str, graph: Graph, model: SavedModel) -> _Reach:
    """Walks forward from one input as long as its values are still themselves, or pieces of them."""
    reach = _Reach()
    nodes = {node.name: node for node in graph.nodes}
    values = {name}
    for node in graph.nodes:
        carried = [i for i, ref in enumerate(node.inputs) if node_of(ref) in values]
        if not carried:
            continue
        reach.decoded = reach.decoded or node.op in DECODERS or node.op in ("While", "StatelessWhile")
        if node.op.startswith("LookupTableFind"):
            table = _ancestor(node.inputs[0], nodes, "table")
            reach.tables += [table] if table else []
        elif node.op == "Bucketize":
            reach.edges += [float(edge) for edge in node.attrs["boundaries"]]
        elif node.op in ("GatherV2", "ResourceGather", "Gather") and 1 in carried:
            variable = _ancestor(node.inputs[0], nodes, "variable")
            reach.rows += [model.variables[variable].shape[0]] if variable and model.variables[variable].shape else []
        elif node.op not in _ENDS:
            values.add(node.name)
    return reach


DECODERS = frozenset({"DecodeJpeg", "DecodePng", "DecodeImage", "DecodeAndCropJpeg"})
_ENDS = frozenset(
    {"MatMul", "BiasAdd", "Shape", "StringToHashBucketFast", "StringToHashBucketStrong", "Equal", "NotEqual", "Less"}
)


def _ancestor(ref: str, nodes: Mapping[str, Node], attribute: str) -> str | None:
    """The variable or table that `ref` comes from through nodes that only pass it on."""
    node = nodes.get(node_of(ref))
    while node is not None and attribute not in node.attrs:
        node = nodes.get(node_of(node.inputs[0])) if node.inputs else None
    return None if node is None else str(node.attrs[attribute])


def from_reference(
    arrays: Mapping[str, np.ndarray[Any, Any]], entry: str, inputs: Sequence[TensorSpec], outputs: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recorded inputs and outputs of one entry, by the names of its inputs and outputs.

    Arrays are named `<signature>|in|<input>` and `<signature>|out|<output>`; a restored function is `root.<path>#<trace>`.
    """
    keys = (entry, f"root.{entry}", f"root.{entry}#0")
    found: dict[str, dict[str, Any]] = {"in": {}, "out": {}}
    for name, array in arrays.items():
        signature, _, rest = name.partition("|")
        direction, _, tensor = rest.partition("|")
        if signature in keys and direction in found:
            found[direction][tensor] = array
    if not found["out"]:
        recorded = sorted({name.partition("|")[0] for name in arrays})
        raise PortingError(f"nothing is recorded for {entry!r}; the reference has {', '.join(recorded)}")
    return _renamed(found["in"], [spec.name for spec in inputs]), _renamed(found["out"], list(outputs))


def _renamed(recorded: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """By our names: components of sparse values are recorded as "x_indices" for "x/indices", functions' values by position."""
    if set(recorded) == set(names):
        return {name: recorded[name] for name in names}
    spelled = {re.sub(r"\W", "_", name): name for name in names}
    if {re.sub(r"\W", "_", name) for name in recorded} <= set(spelled):
        return {spelled[re.sub(r"\W", "_", name)]: array for name, array in recorded.items()}
    if len(recorded) != len(names):
        raise PortingError(f"the reference has {', '.join(recorded)}, the tower {', '.join(names)}")
    return dict(zip(names, recorded.values(), strict=True))
