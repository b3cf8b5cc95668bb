"""Names of the values that cross from one stage of a tower to the next: those of the model's author where one is left."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping

from porting.names import identifier
from torch_towers.graph.graph import Graph, Node, node_of, references
from torch_towers.graph.registry import MODULES

_OP = re.compile(r"[A-Z][A-Za-z0-9]*(_\d+)?|in_range(_\d+)?|sparse_bags(_\d+)?")
"""A part of a name that is an op's, not a scope of the author's: "GatherV2", "SparseFillEmptyRows_1"."""
_GIVEN = re.compile(
    r"(sequential|functional|model|embedding|weight|linear|dense|text_vectorization|string_lookup|integer_lookup|hashing"
    r"|discretization|category_encoding|value)(_\d+)*"
)
"""A part of a name that Keras gives, or the porter, where the author gave none."""


def origin(ref: str, nodes: Mapping[str, Node]) -> str:
    """The value itself, where `ref` is the same one after a check of its range."""
    while (node := nodes.get(node_of(ref))) is not None and node.op == "in_range":
        ref = str(node.inputs[0])
    return ref


def wanted_name(ref: str, source: str, graph: Graph, readers: Iterable[Node], *, is_id: bool) -> str:
    """The name under which `ref` should cross to `readers`; `source` is its origin, and `is_id` says it is an integer.

    It is the input's own, or that of the node which computes it. Where that says only which ops or Keras layers were
    used, the layer that reads the value names it (`token_ids` for the ids of `token_embedding`), or the only input that
    it is made of (`title_ids`).
    """
    if any(spec.name == source for spec in graph.inputs):
        return identifier(source)
    if name := _feature(source, graph):
        return identifier(name)
    last = node_of(ref).rpartition(".")[2]
    if _OP.fullmatch(last) or _GIVEN.fullmatch(last):
        name = _operand_of_layer(ref, graph, readers)
        if name or (is_id and (name := _made_of(source, graph))):
            return identifier(name)
    return identifier(ref.replace(".", "_").replace(":", "_"))


def _feature(ref: str, graph: Graph) -> str:
    """The key of a feature of serialized examples, for what parsing gives of it: "tips", "company_values"."""
    parsed = next((node for node in graph.nodes if node.name == node_of(ref) and node.op == "parse_examples"), None)
    if parsed is None:
        return ""
    keys = {
        part: [bytes(row[0]).decode(errors="replace") for row in parsed.attrs[part]]
        for part in ("sparse", "dense", "ragged")
    }
    results = [f"{key}_{part}" for part in ("indices", "values", "shape") for key in keys["sparse"]]
    results += keys["dense"] + [f"{key}_{part}" for part in ("values", "splits") for key in keys["ragged"]]
    return results[int(ref.partition(":")[2] or 0)]


def _operand_of_layer(ref: str, graph: Graph, readers: Iterable[Node]) -> str:
    """`ref` as an operand of the first layer that reads it and has a name: "token_ids", "genres_lengths"."""
    for node in readers:
        layer = str(node.attrs["module"]) if node.op == "module" and ref in node.inputs else ""
        scope = layer.rpartition(".")[2]
        if not scope or _GIVEN.fullmatch(scope):
            continue
        kind = graph.modules[layer].type
        function = MODULES[kind].function
        parameters = [
            name for name in inspect.signature(getattr(function, "forward", function)).parameters if name != "self"
        ]
        operand = "ids" if kind == "Embedding" else parameters[min(node.inputs.index(ref), len(parameters) - 1)]
        feature = re.sub(r"_embeddings?(?=(_\d+)?$)", "", scope)
        return f"{feature}_{operand}"
    return ""


def _made_of(ref: str, graph: Graph) -> str:
    """The ids of the only input that a value is made of: "title_ids" of "title", "user_ids" of "user_id"; else empty."""
    nodes = {node.name: node for node in graph.nodes}
    inputs = {spec.name for spec in graph.inputs}
    found: set[str] = set()
    open_, seen = [node_of(ref)], set[str]()
    while open_:
        name = open_.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in inputs:
            found.add(name)
        elif name in nodes:
            open_ += map(node_of, references(nodes[name].inputs))
    if len(found) != 1:
        return ""
    return re.sub(r"(_|(?<=[a-z]))[iI]ds?$", "", found.pop()) + "_ids"
