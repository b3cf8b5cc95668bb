"""Serialized `tf.Example` records that a graph's parser would take, for the comparison with TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from torch_towers.graph import Graph, Node, node_of

RECORDS = 24
_WORDS: dict[str, list[Any]] = {
    "string": [b"a", b"b", b"", "caf\u00e9".encode(), b"hello world", b"42", b"\xff"],
    "int64": [0, 1, 2, 3, 7, 42, 1000],
    "float32": [0.0, 1.0, -1.5, 3.25, 100.0, 0.001],
}


def serialized_examples(graph: Graph, *, values: int) -> dict[str, list[bytes]]:
    """For each input that goes straight into a parser of examples, records with and without its optional features.

    `values` is how many values the features of free length hold.
    """
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, list[bytes]] = {}
    for node in graph.nodes:
        if node.op in ("ParseExample", "ParseExampleV2", "ParseSingleExample"):
            source = _source(node.inputs[0], nodes)
            features = _features(node, nodes, values)
            found[source] = [_record(features, i) for i in range(RECORDS)]
    return {name: records for name, records in found.items() if name in {spec.name for spec in graph.inputs}}


def _source(ref: str, nodes: Mapping[str, Node]) -> str:
    """The input of the graph that `ref` comes from, through nodes that only pass it on."""
    node = nodes.get(node_of(ref))
    while node is not None and node.inputs:
        ref = node.inputs[0]
        node = nodes.get(node_of(ref))
    return node_of(ref)


def _features(node: Node, nodes: Mapping[str, Node], free: int) -> list[tuple[bytes, str, int, bool]]:
    """Name, dtype, number of values and whether it may be missing, of every feature that the parser reads."""
    attrs = node.attrs
    values = [_constant(ref, nodes) for ref in node.inputs]
    dense_shapes = attrs.get("dense_shapes", ())
    if node.op == "ParseExampleV2":
        sparse, dense, ragged = (_names(value) for value in values[2:5])
        defaults = values[5:]
    elif node.op == "ParseExample":
        sparse_count = len(attrs.get("sparse_types", ()))
        sparse = [name for value in values[2 : 2 + sparse_count] for name in _names(value)]
        dense = [
            name for value in values[2 + sparse_count : 2 + sparse_count + len(dense_shapes)] for name in _names(value)
        ]
        ragged, defaults = [], values[2 + sparse_count + len(dense_shapes) :]
    else:
        sparse, dense, ragged = list(attrs.get("sparse_keys", ())), list(attrs.get("dense_keys", ())), []
        defaults = values[1:]
    found = [(name, dtype, free, True) for name, dtype in zip(sparse, attrs.get("sparse_types", ()), strict=True)]
    found += [
        (name, dtype, free, True) for name, dtype in zip(ragged, attrs.get("ragged_value_types", ()), strict=True)
    ]
    for name, dtype, shape, default in zip(dense, attrs.get("Tdense", ()), dense_shapes, defaults, strict=True):
        count = 1
        for size in shape or ():
            count *= size or 1
        found.append((name, dtype, count, default is not None and default.size > 0))
    return found


def _constant(ref: str, nodes: Mapping[str, Node]) -> Any:
    """The elements of a constant; TensorFlow reshapes the default values of its features."""
    node = nodes.get(node_of(ref))
    while node is not None and node.op in ("Identity", "Reshape"):
        node = nodes.get(node_of(node.inputs[0]))
    return node.attrs["value"] if node is not None and node.op == "Const" else None


def _names(value: Any) -> list[bytes]:
    return [] if value is None else list(value.reshape(-1).tolist())


def _record(features: Sequence[tuple[bytes, str, int, bool]], index: int) -> bytes:
    entries = [
        _field(1, _field(1, name) + _field(2, _feature(dtype, count, index + i)))
        for i, (name, dtype, count, optional) in enumerate(features)
        if not (optional and (index + i) % 5 == 4)
    ]
    return _field(1, b"".join(entries))


def _feature(dtype: str, count: int, index: int) -> bytes:
    pool = _WORDS[dtype]
    values = [pool[(index + i) % len(pool)] for i in range(count)]
    if dtype == "string":
        return _field(1, b"".join(_field(1, value) for value in values))
    if dtype == "float32":
        return _field(2, _field(1, struct.pack(f"<{count}f", *values)))
    return _field(3, _field(1, b"".join(_varint(value) for value in values)))


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
