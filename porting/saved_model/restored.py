"""Restored functions: a SavedModel's functions besides its signatures, by their dotted path
(`query_model.__call__`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.dtypes import dtype_of
from porting.saved_model.names import Names
from porting.saved_model.source import Source, asset_node, check_object_id, concrete_names, make_call, make_node
from porting.saved_model.structure import Leaf, leaves
from porting.saved_model.variables import Variables, object_paths
from torch_towers.graph.graph import TensorSpec

_UNLISTED = re.compile(r"_(?!_call__$).*|trace_\d+|")  # private functions, and traces, which `path#0` also names
_UNLISTED_ROOTS = ("signatures", "keras_api")
_FUNCTION_KINDS = ("function", "bare_concrete_function")


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace of a restored function: its library function, its tensors by name, and the captured objects."""

    function: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    captures: tuple[int, ...]


class RestoredFunctions:
    """The functions of the object graph."""

    def __init__(self, source: Source, variables: Variables) -> None:
        self._source = source
        self._variables = variables
        self.paths = {".".join(path): index for index, path in object_paths(source.objects, str(source.path))}

    def listed(self) -> list[str]:
        """The paths of public functions."""
        return [
            path
            for path in self.paths
            if path.split(".")[0] not in _UNLISTED_ROOTS
            and not any(_UNLISTED.fullmatch(part) for part in path.split("."))
        ]

    def traces(self, path: str) -> tuple[Trace, ...] | None:
        """The traces of the function at `path`, under any of its names; None if there is no function."""
        objects = self._source.objects
        index = self.paths.get(path, 0)
        if not index and len(objects):
            for part in path.split("."):
                index = next((child.node_id for child in objects[index].children if child.local_name == part), -1)
                if index < 0:
                    return None
                check_object_id(index, objects, f"{self._source.path}: path '{path}'")
        if not len(objects) or objects[index].WhichOneof("kind") not in _FUNCTION_KINDS:
            return None
        return tuple(self._trace(name, f"{self._source.path}: '{path}'") for name in concrete_names(objects[index]))

    def _trace(self, name: str, where: str) -> Trace:
        concrete = self._source.meta.object_graph_def.concrete_functions
        if name not in concrete or name not in self._source.functions:
            missing = "the object graph" if name not in concrete else "the library"
            raise CorruptModelError(f"{where}: its function '{name}' is missing from {missing}")
        captures = tuple(concrete[name].bound_inputs)
        for index in captures:
            check_object_id(index, self._source.objects, f"{where}: capture of function '{name}'")
        function = self._source.functions[name].signature
        if len(captures) > len(function.input_arg):
            raise CorruptModelError(
                f"{where}: function '{name}' takes {len(function.input_arg)} tensors and captures {len(captures)}"
            )
        arguments = list(function.input_arg)[: len(function.input_arg) - len(captures)]
        structure = list(leaves(concrete[name].canonicalized_input_signature, where))
        if len(structure) != len(
            arguments
        ):  # the structure omits tensors: the function's own arguments are authoritative
            structure = [Leaf((), arg.name, "", "", None) for arg in arguments]
        names = Names()
        first: dict[
            tuple[str | int, ...], str
        ] = {}  # all components of a composite tensor share the name of its first argument
        inputs: list[TensorSpec] = []
        for leaf, arg in zip(structure, arguments):
            argument = first.setdefault(leaf.path, arg.name) if leaf.component else arg.name
            label = names.unique(_input_name(leaf, argument))
            inputs.append(TensorSpec(label, dtype_of(arg.type, where).name, leaf.shape))
        outputs = _output_names(list(leaves(concrete[name].output_signature, where)), len(function.output_arg))
        return Trace(name, tuple(inputs), tuple(outputs), captures)

    def graph_of(self, trace: Trace) -> tuple[dict[str, Any], list[tuple[TensorSpec, str]], dict[str, str]]:
        """(nodes, inputs, outputs) for `entry_graph`: one call of the trace's function on its inputs and captures."""
        source = self._source
        where = f"{source.path}: function '{trace.function}'"
        nodes: dict[str, Any] = {}
        names = Names(spec.name for spec in trace.inputs)
        captured: dict[int, str] = {}
        for index in trace.captures:
            if index not in captured:
                node = self._capture(index, where)
                node.name = captured[index] = names.unique(node.name)
                nodes[node.name] = node
        inputs: list[tuple[TensorSpec, str]] = []
        signature = source.functions[trace.function].signature
        for spec, arg in zip(trace.inputs, signature.input_arg):
            fed = names.unique("input")
            nodes[fed] = make_node(fed, "Placeholder", [])
            nodes[fed].attr["dtype"].type = arg.type
            inputs.append((spec, fed))
        call = names.unique("call")
        operands = [fed for _, fed in inputs] + [captured[index] for index in trace.captures]
        nodes[call] = make_call(call, operands, signature)
        return nodes, inputs, {name: f"{call}:{i}" for i, name in enumerate(trace.outputs)}

    def _capture(self, index: int, where: str) -> Any:
        """A NodeDef for a captured object; its name may be taken."""
        source = self._source
        item = source.objects[index]
        kind = item.WhichOneof("kind")
        if kind == "variable":
            key = self._variables.of_object(index)
            if key is None:
                raise CorruptModelError(
                    f"{where}: captures variable '{item.variable.name}', object {index}, which is not in the checkpoint"
                )
            node = make_node(key, "VarHandleOp", [])
            node.attr["dtype"].type = item.variable.dtype
            node.attr["shape"].shape.CopyFrom(item.variable.shape)
            node.attr["variable"].s = key.encode("utf-8", "surrogateescape")
            return node
        if kind == "constant":
            constant = source.nodes.get(item.constant.operation)
            if constant is None or constant.op != "Const":
                raise CorruptModelError(
                    f"{where}: captures constant '{item.constant.operation}', object {index}, which is not in the graph"
                )
            node = make_node(constant.name, "Const", [])
            for name in constant.attr:
                node.attr[name].CopyFrom(constant.attr[name])
            return node
        if kind == "asset":
            asset = item.asset.asset_file_def_index
            if not 0 <= asset < len(source.asset_names):
                raise CorruptModelError(f"{where}: captures asset {asset}, expected 0 to {len(source.asset_names) - 1}")
            return asset_node("asset", source.asset_names[asset])
        creator = source.creator(index, where)
        if creator is not None and creator in source.functions:
            return make_call("resource", [], source.functions[creator].signature)
        raise PortingError(f"{where}: captures object {index} of kind {kind}, which is not supported")


def _input_name(leaf: Leaf, argument: str) -> str:
    """The name of a tensor: from dict keys, else its TensorSpec, else the function's argument."""
    name = "/".join(part for part in leaf.path if isinstance(part, str)) or leaf.name or argument
    name = name.replace(":", "_").removeprefix("^") or argument
    return f"{name}/{leaf.component}" if leaf.component else name


def _output_names(structure: list[Leaf], count: int) -> list[str]:
    """Names of results: a single one is "output" (or "values", "splits0", ...), others are dict keys or "output_0",
    "output_1", ..."""
    if len(structure) != count:
        return [f"output_{i}" for i in range(count)]
    names = Names()
    outputs: list[str] = []
    for leaf in structure:
        parts = [part if isinstance(part, str) else f"output_{part}" for part in leaf.path]
        outputs.append(names.unique("/".join([*parts, leaf.component] if leaf.component else parts) or "output"))
    return outputs
