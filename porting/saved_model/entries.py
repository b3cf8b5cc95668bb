"""The graph of an entry: cut at the fed tensors, walked back from the outputs, in topological order, with every
resource leaf named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.decode import decode_node, decode_shape
from porting.saved_model.dtypes import dtype_of
from porting.saved_model.files import check_asset
from porting.saved_model.names import Names
from porting.saved_model.node_checks import NodeChecks
from porting.saved_model.order import topological
from porting.saved_model.source import Source
from porting.saved_model.structure import composite_leaves
from porting.saved_model.tables import TABLE_OPS, Tables
from porting.saved_model.variables import VARIABLE_OPS, Variables, text_attr
from torch_towers.graph.graph import Graph, Node, TensorSpec


def expand(name: str, info: Any, where: str) -> list[tuple[TensorSpec, str]]:
    """(spec, tensor) of each dense tensor of a TensorInfo. Components of sparse and ragged tensors are named as
    TensorFlow names them at load time.

    Source: tensorflow/python/saved_model/load_v1_in_v2.py.
    """
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        dtype = dtype_of(info.dtype, where).name
        shape = decode_shape(info.tensor_shape, where)
        rank = None if shape is None else len(shape)
        sparse = info.coo_sparse
        return [
            (TensorSpec(f"{name}_indices", "int64", (None, rank)), sparse.indices_tensor_name),
            (TensorSpec(f"{name}_values", dtype, (None,)), sparse.values_tensor_name),
            (TensorSpec(f"{name}_dense_shape", "int64", (rank,)), sparse.dense_shape_tensor_name),
        ]
    if kind == "composite_tensor":
        components = info.composite_tensor.components
        parts = composite_leaves(info.composite_tensor.type_spec, where)
        if parts and len(parts) != len(components):
            raise CorruptModelError(
                f"{where}: '{name}' has {len(components)} components, expected {len(parts)} by its type"
            )
        return [
            pair for i, component in enumerate(components) for pair in expand(f"{name}_component_{i}", component, where)
        ]
    return [(TensorSpec(name, dtype_of(info.dtype, where).name, decode_shape(info.tensor_shape, where)), info.name)]


class Leaves:
    """Names the resources behind the leaves of a graph."""

    def __init__(self, source: Source, variables: Variables, tables: Tables) -> None:
        self._source = source
        self._variables = variables
        self._tables = tables

    def name(self, node: Node, body: str) -> Node:
        """`node` of the main graph (`body` "") or of a function, with an added attr: `variable` or `table`, a key, or
        `asset`, a checked path."""
        if node.op in VARIABLE_OPS and "variable" in node.attrs:  # a captured object: the key is known
            key = text_attr(node, "variable")
            self._variables.check(key, node.attrs.get("dtype"), node.attrs.get("shape"), str(self._source.path))
            return _with(node, "variable", key)
        if node.op in VARIABLE_OPS:
            where = f"{self._source.path}{f': function {body!r}' if body else ''}: node '{node.name}'"
            return _with(node, "variable", self._variables.of_node(node, where))
        if node.op in TABLE_OPS:
            return _with(node, "table", self._tables.key(node.name, text_attr(node, "shared_name"), body))
        if node.op == "Const" and "asset" in node.attrs:
            return _with(node, "asset", check_asset(self._source.path, text_attr(node, "asset")))
        return node


def _with(node: Node, name: str, value: Any) -> Node:
    return Node(node.name, node.op, node.inputs, {**node.attrs, name: value})


def entry_graph(
    nodes: Mapping[str, Any],
    inputs: Sequence[tuple[TensorSpec, str]],
    outputs: Mapping[str, str],
    leaves: Leaves,
    functions: Mapping[str, Any],
    where: str,
) -> Graph:
    """The graph from `inputs` (each with the tensor that it feeds) to `outputs`. Nodes whose names clash with an input
    are renamed."""
    fed: dict[str, str] = {}
    for spec, reference in inputs:
        if ":" in spec.name or spec.name.startswith("^"):
            raise PortingError(f"{where}: input '{spec.name}' has a ':' or '^' in its name, which is not supported")
        if fed.setdefault(_normal(reference), spec.name) != spec.name:
            raise PortingError(
                f"{where}: inputs '{fed[_normal(reference)]}' and '{spec.name}' are the same tensor '{reference}'"
            )
    order = topological(nodes, outputs.values(), fed, where)
    specs = {spec.name for spec, _ in inputs}
    names = Names(specs | set(order))
    renamed = {name: names.unique(name) for name in order if name in specs}

    def rewrite(reference: str) -> str | None:
        if reference.startswith("^"):
            name = reference[1:]
            return "^" + renamed.get(name, name) if name in order else None
        reference = _normal(reference)
        if reference in fed:
            return fed[reference]
        name, colon, output = reference.partition(":")
        return renamed.get(name, name) + colon + output

    rewritten: list[Node] = []
    checks = NodeChecks(nodes, functions, where)
    for name in order:
        checks.check(nodes[name])
        node = leaves.name(decode_node(nodes[name], where), "")
        operands = tuple(operand for operand in map(rewrite, node.inputs) if operand is not None)
        rewritten.append(Node(renamed.get(name, name), node.op, operands, node.attrs))
    for name, reference in outputs.items():
        if _normal(reference) not in fed:
            checks.check_result(reference, f"{where}: output '{name}'")
    results = {name: rewrite(reference) or "" for name, reference in outputs.items()}
    return Graph(tuple(spec for spec, _ in inputs), tuple(rewritten), results)


def _normal(reference: str) -> str:
    return reference.removesuffix(":0")
