"""Cuts a graph after a private parser at its front, and names the features that the parser returned.

The serving signature of Vertex AI's Two-Tower algorithm takes JSON documents, parsed in the graph by an op of Google's
own serving image. After the cut, the tower takes the features by name; `torch_towers.inputs.vertex` reads the
documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import PortingError
from porting.flat_graph.effects import normal, upstream
from porting.flat_graph.subgraph import Cut
from porting.registry import CONVERTERS
from porting.saved_model.names import Names
from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of

Schema = Mapping[str, Mapping[str, Any]]
_PASSES = ("Const", "Identity", "Reshape", "ExpandDims", "Squeeze")
_FLOATS = ("Numeric", "Vector")


def read_schema(path: Path, side: str) -> dict[str, dict[str, Any]]:
    """The features of the query or candidate in an `input_schema.json` of the Two-Tower algorithm: name -> type and
    config."""
    try:
        features = json.loads(path.read_bytes())[side]
        return {name: {**item.get("config", {}), "type": str(item["feature_type"])} for name, item in features.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PortingError(f"{path}: is not an input schema ({type(error).__name__}: {error})") from error


def front(graph: Graph, wanted: str | None = None, schema: Schema | None = None) -> Cut:
    """The cut after the op that parses the signature's inputs; empty if every op has a converter.

    `wanted` names the op or node; otherwise it is detected: an op without converter that takes only text inputs and
    constants, with weights after it. `schema` gives names, in order, and types if the node does not. Errors:
    `PortingError`.
    """
    nodes = {node.name: node for node in graph.nodes}
    last = _parsers(graph, nodes) if wanted is None else [node for node in graph.nodes if _is_called(node, wanted)]
    if not last and wanted is not None:
        raise PortingError(f"there is no op or node {wanted!r} to cut the graph at; --inspect lists the ops")
    used: dict[str, list[Node]] = {}
    inside = upstream([node.name for node in last], nodes, {})
    for node in graph.nodes:
        for ref in node.inputs:
            if node.name not in inside and node_of(ref) in {item.name for item in last}:
                used.setdefault(ref, []).append(node)
    for ref in graph.outputs.values():
        if node_of(ref) in {item.name for item in last}:
            used.setdefault(ref, [])
    names = Names(nodes)
    feeds: dict[str, TensorSpec] = {}
    for node in last:
        refs = sorted((ref for ref in used if node_of(ref) == node.name), key=_place)
        for ref, (name, dtype, shape) in zip(refs, _features(node, refs, used, nodes, schema or {}), strict=True):
            feeds[normal(ref)] = TensorSpec(names.unique(name), dtype, shape)
    return Cut(feeds)


def _parsers(graph: Graph, nodes: Mapping[str, Node]) -> list[Node]:
    """The last ops without converter, if they and their dependencies are only a parser of the signature's text."""
    missing = {name for name in upstream(graph.outputs.values(), nodes) if nodes[name].op not in CONVERTERS}
    above = {name: upstream([name], nodes, {}) for name in missing}
    needed = set[str]().union(*above.values())
    inputs = {spec.name: spec.dtype for spec in graph.inputs}
    taken = {inputs[node_of(ref)] for name in needed for ref in nodes[name].inputs if node_of(ref) in inputs}
    only_parses = all(name in missing or nodes[name].op in _PASSES for name in needed)
    weights = any("variable" in node.attrs for node in graph.nodes)
    if not (only_parses and weights and taken == {"string"}):
        return []
    return [nodes[name] for name in missing if not any(name in above[other] for other in missing - {name})]


def _is_called(node: Node, name: str) -> bool:
    return name in (node.name, node.op) or node.name.endswith(f"/{name}")


def _place(ref: str) -> tuple[str, int]:
    """The output argument and index of a result: ("dense_values", 2) of "parse:dense_values:2"."""
    argument, _, index = ref.partition(":")[2].rpartition(":")
    return argument, int(index or 0)


def _features(
    node: Node, refs: list[str], users: Mapping[str, list[Node]], nodes: Mapping[str, Node], schema: Schema
) -> list[tuple[str, str, tuple[int | None, ...] | None]]:
    """Name, dtype and shape of each used result.

    A name is taken from the first source that has one: the node's own list of names, the schema, the output argument.
    For a dtype: the node's own list, the ops that use the result, the schema. For

        parse = ParseDocuments(json, names=["age", "city"], Tout=["float32", "string"])      used: parse:0, parse:1

    the results are ("age", "float32") and ("city", "string"). Without the two lists, and with `StringToHash(parse:1)`
    after it, they are ("parse_0", "string") and ("parse_1", "string"), or have the schema's names if it has two
    features.
    """
    several = len({_place(ref)[0] for ref in refs}) > 1
    count = 1 + max((_place(ref)[1] for ref in refs), default=0)
    words = [] if several else _words(node, count, nodes)
    dtypes = [] if several else _list_of(node, count, lambda item: item in TORCH_DTYPES or item == "string")
    shapes: tuple[Any, ...] = node.attrs.get("_output_shapes", ())
    found: list[tuple[str, str, tuple[int | None, ...] | None]] = []
    for i, ref in enumerate(refs):
        argument, index = _place(ref)
        name = (
            words[index]
            if words
            else list(schema)[i]
            if len(schema) == len(refs)
            else _plain_name(node, argument, index, several)
        )
        feature = schema.get(name, {})
        dtype = (
            dtypes[index]
            if dtypes
            else _taken_by(users[ref]) or ("float32" if feature.get("type") in _FLOATS else "string")
        )
        shape = shapes[index] if not several and len(shapes) > index else None
        found.append(
            (name, dtype, shape or ((None,) if feature.get("type") == "Id" else (None, feature.get("length"))))
        )
    return found


def _plain_name(node: Node, argument: str, index: int, several: bool) -> str:
    base = argument or node.name.rpartition("/")[2]
    return base if several and index == 0 else f"{base}_{index}"


def _words(node: Node, count: int, nodes: Mapping[str, Node]) -> list[str]:
    """The names of features: a list of strings among the attributes or constant operands, with one per result."""
    names = _list_of(node, count, lambda item: isinstance(item, bytes))
    for ref in node.inputs:
        value: Any = nodes[node_of(ref)].attrs.get("value") if node_of(ref) in nodes else None
        listed: Any = (
            value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == object else []
        )  # type: ignore[reportUnknownMemberType]
        if not names and len(listed) >= count:
            names = listed
    texts = [name.decode("utf-8", "replace") for name in names]
    return texts if len(set(texts)) == len(texts) and all(texts) else []


def _list_of(node: Node, count: int, fits: Callable[[Any], bool]) -> list[Any]:
    for name, value in node.attrs.items():
        items: list[Any] = list(value) if isinstance(value, tuple) and not name.startswith("_") else []  # type: ignore[reportUnknownArgumentType]
        if len(items) >= count and all(fits(item) for item in items):
            return items
    return []


def _taken_by(users: list[Node]) -> str | None:
    """The dtype required by the ops that use a result."""
    for node in users:
        if node.op.startswith(("String", "StaticRegex", "Regex", "Unicode", "DecodeBase64", "DecodeRaw")):
            return "string"
        dtype = next((node.attrs[attr] for attr in ("T", "Tin", "SrcT", "Tparams") if attr in node.attrs), None)
        if isinstance(dtype, str):
            return dtype
    return None


def described(graph: Graph, cut: Cut) -> list[str]:
    """Describes the cut, one line per node."""
    nodes = {node.name: node for node in graph.nodes}
    lines: list[str] = []
    for name in dict.fromkeys(node_of(ref) for ref in cut.feeds):
        fed = [spec for ref, spec in cut.feeds.items() if node_of(ref) == name]
        features = ", ".join(f"{spec.name!r} ({spec.dtype})" for spec in fed)
        lines.append(f"cut after {nodes[name].op} {name!r}: the tower takes {features}")
    return lines
