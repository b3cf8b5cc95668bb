"""Groups inputs that are the components of one sparse or ragged value, by their names and by how the graph uses them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from porting.saved_model.op_definitions import definition
from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of, references

_PART = re.compile(r"^(.*?)(?:__|_|/)(indices|values|dense_shape|offsets|(?:row_)?splits_?\d*)$")
_WHOLE = (frozenset({"indices", "values", "dense_shape"}), frozenset({"splits", "values"}))
_NAMES = {"dense_shape": "shape", "offsets": "splits"}
_OPERAND = re.compile(r"^(.*?)_?(indices|values|dense_shape|shape)$")
_INTEGERS = ("int32", "int64")


def component_of(name: str, names: set[str]) -> str | None:
    """The component of a sparse or ragged value that the input `name` is: "values", "indices", "shape" or "splits";
    None for a tensor.

    "x_values" is a component if "x_indices" and "x_dense_shape" exist too, "x__values" if "x__offsets" does, and so on.
    """
    base, part = _split(name)
    siblings = {other for other_base, other in map(_split, names) if other_base == base}
    if part is None or not any({_NAMES.get(p, p) for p in whole} <= siblings for whole in _WHOLE):
        return None
    return part


def named_components(names: Iterable[str]) -> dict[str, str]:
    """The components among `names`, by name alone."""
    known = set(names)
    return {name: part for name in known if (part := component_of(name, known))}


def components_of(graph: Graph) -> dict[str, str]:
    """The components among the inputs of a flat TF graph, by name, or else by use.

    Inputs form a sparse value if an op takes them as its `..._indices`, `..._values` and `..._shape`. An input holds row
    splits if an op takes it as such, or if neighbors are subtracted (`splits[1:] - splits[:-1]`); its values are the input
    that it is named after, as TensorFlow names the flattened tensors of one argument ("x", "x_1").
    """
    found = named_components(spec.name for spec in graph.inputs)
    specs = {spec.name: spec for spec in graph.inputs if spec.name not in found and spec.shape is not None}
    uses = _Uses(graph)
    for node in graph.nodes:
        for operands in _sparse_operands(node):
            found |= _sparse(operands, uses, specs)
    for name in uses.splits():
        base, _, number = name.rpartition("_")
        values = specs.get(base)
        if name in specs and number.isdecimal() and values is not None and values.shape and values.shape[0] is None:
            found |= {base: "values", name: "splits"}
    return found


def _split(name: str) -> tuple[str, str | None]:
    """ "x" and "splits" of "x_row_splits"."""
    match = _PART.match(name)
    if match is None:
        return name, None
    part = match[2]
    return match[1], "splits" if "splits" in part else _NAMES.get(part, part)


class _Uses:
    """Which inputs each value of a graph depends on, and which inputs are used as row splits."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = {node.name: node for node in graph.nodes}
        self._sources: dict[str, frozenset[str]] = {spec.name: frozenset([spec.name]) for spec in graph.inputs}
        for node in graph.nodes:  # operands first
            operands = [self._sources.get(node_of(ref), frozenset()) for ref in references(node.inputs)]
            self._sources[node.name] = frozenset().union(*operands)
        self._inputs = {spec.name for spec in graph.inputs}

    def sources(self, operands: Iterable[Any]) -> set[str]:
        return {name for ref in references(tuple(operands)) for name in self._sources.get(node_of(ref), ())}

    def splits(self) -> Iterator[str]:
        """The inputs used as row splits."""
        slices: dict[str, set[str]] = {}
        for node in self._nodes.values():
            for name, operands in _arguments(node).items():
                if "splits" in name and name != "size_splits":
                    yield from (input for operand in operands if (input := self._input(operand)))
            if node.op == "StridedSlice" and (input := self._input(node.inputs[0])):
                slices.setdefault(input, set()).add(self._slice(node))
        yield from (name for name, kinds in slices.items() if kinds >= {"[1:]", "[:-1]"})

    def _input(self, operand: Any) -> str | None:
        """The input that an operand is, looking through Identity nodes."""
        name = node_of(operand) if isinstance(operand, str) else ""
        while name in self._nodes and self._nodes[name].op == "Identity":
            name = node_of(str(self._nodes[name].inputs[0]))
        return name if name in self._inputs else None

    def _slice(self, node: Node) -> str:
        begin, end = (self._constant(operand) for operand in node.inputs[1:3])
        begin = None if node.attrs.get("begin_mask", 0) & 1 else begin
        end = None if node.attrs.get("end_mask", 0) & 1 else end
        return f"[{'' if begin in (None, 0) else begin}:{'' if end in (None, 0) else end}]"

    def _constant(self, operand: Any) -> int | None:
        node = self._nodes.get(node_of(operand)) if isinstance(operand, str) else None
        value = node.attrs.get("value") if node is not None and node.op == "Const" else None
        return int(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind == "i" else None


def _arguments(node: Node) -> dict[str, Sequence[Any]]:
    """A TF node's operands by argument name; a list argument has as many as its attribute says."""
    found = definition(node.op)
    arguments: dict[str, Sequence[Any]] = {}
    at = 0
    for argument in found.inputs if found is not None else ():
        count = node.attrs.get(argument.number, 1) if argument.number else len(node.attrs.get(argument.types, (1,)))
        arguments[argument.name] = node.inputs[at : at + count]
        at += count
    return arguments


def _sparse_operands(node: Node) -> list[dict[str, Sequence[Any]]]:
    """The operands of an op that form a sparse value: {"indices": ..., "values": ..., "shape": ...} for each."""
    groups: dict[str, dict[str, Sequence[Any]]] = {}
    for name, operands in _arguments(node).items():
        if (match := _OPERAND.match(name)) and len(operands) == 1:
            groups.setdefault(match[1], {})[_NAMES.get(match[2], match[2])] = operands
    return [group for group in groups.values() if len(group) == 3]


def _sparse(operands: Mapping[str, Sequence[Any]], uses: _Uses, specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """The inputs that the operands depend on, if each depends on one of the right dtype and shape; else empty."""
    fits = {
        "indices": lambda spec: spec.dtype == "int64" and len(spec.shape) == 2 and spec.shape[0] is None,
        "shape": lambda spec: spec.dtype == "int64" and len(spec.shape) == 1 and spec.shape[0] is not None,
        "values": lambda spec: len(spec.shape) == 1 and spec.shape[0] is None,
    }
    found: dict[str, str] = {}
    for part, fit in fits.items():
        names = [name for name in uses.sources(operands[part]) if name in specs and fit(specs[name])]
        if len(names) != 1:
            return {}
        found[names[0]] = part
    return found
