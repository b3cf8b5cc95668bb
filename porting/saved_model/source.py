"""State shared by all parts of the reader: the messages of one meta graph by name, the checkpoint, and the resolution
of references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import CorruptModelError
from porting.saved_model import protos
from porting.saved_model.bundle import Bundle
from porting.saved_model.calls import Bodies, Body, Scope, data_inputs, node_name
from porting.saved_model.constants import Constants

_DT_STRING = 7


class Source:
    """One meta graph and its checkpoint. `bundle` is None without variables."""

    def __init__(self, path: Path, meta_graph: Any, bundle: Bundle | None) -> None:
        self.path = path
        self.meta = meta_graph
        self.bundle = bundle
        self.objects = meta_graph.object_graph_def.nodes
        library = meta_graph.graph_def.library.function
        self.functions: Mapping[str, Any] = _by_name(
            library, lambda item: item.signature.name, f"{path}: function library"
        )
        self.nodes: dict[str, Any] = _by_name(meta_graph.graph_def.node, lambda item: item.name, f"{path}: graph")
        self.asset_names: list[str] = self._place_assets()
        self.main = Scope(Body("", self.nodes))
        self.bodies = Bodies(self.functions, str(path))
        self.constants = Constants(self.bodies, self._restore)

    def checkpoint(self, key: str) -> Bundle:
        """The checkpoint, checked to have a tensor `key`. Raises CorruptModelError."""
        if self.bundle is None:
            raise CorruptModelError(
                f"{self.path}: '{key}' is to be restored, but variables/variables.index is missing; copy the whole folder"
            )
        if key not in self.bundle.entries:
            raise CorruptModelError(
                f"{self.bundle.index}: no tensor '{key}', which the graph restores; it is the checkpoint of another model"
            )
        return self.bundle

    def captures(self) -> Iterator[tuple[str, int]]:
        """(node of the main graph, object) for each node that a call in the main graph passes for a captured object."""
        concrete = self.meta.object_graph_def.concrete_functions
        for node in self.nodes.values():
            function = node.attr["f"].func.name if "f" in node.attr else node.op
            if function in concrete:
                bound = list(concrete[function].bound_inputs)
                yield from zip(map(node_name, data_inputs(node)[::-1]), bound[::-1])

    def creator(self, index: int, where: str) -> str | None:
        """The function that creates the resource with object index `index`."""
        for child in self.objects[index].children:
            if child.local_name == "_create_resource":
                check_object_id(child.node_id, self.objects, f"{where}: object {index}, child '{child.local_name}'")
                return next(iter(concrete_names(self.objects[child.node_id])), None)
        return None

    def _restore(self, key: str) -> np.ndarray:
        return self.checkpoint(key).numpy(key)

    def _place_assets(self) -> list[str]:
        """The file names of the assets, by index. Every node fed with an asset's path at load time becomes a constant
        with an attr `asset`."""
        definitions = list(self.meta.asset_file_def)
        collections = self.meta.collection_def
        if not definitions and "saved_model_assets" in collections:  # models of TensorFlow 1
            where = f"{self.path}: collection saved_model_assets"
            values = collections["saved_model_assets"].any_list.value
            definitions = [protos.parse("AssetFileDef", value.value, where) for value in values]
        placed: dict[str, str] = {}
        for definition in definitions:
            name = node_name(definition.tensor_info.name)
            if name not in self.nodes:
                raise CorruptModelError(
                    f"{self.path}: asset '{definition.filename}' is for node '{name}', which is not in the graph"
                )
            placed[name] = definition.filename
        holders: dict[str, str] = {}  # since TensorFlow 2.10 the path goes through a variable
        for node in self.nodes.values():
            if node.op == "AssignVariableOp" and len(node.input) >= 2 and node_name(node.input[1]) in placed:
                holders[node_name(node.input[0])] = placed[node_name(node.input[1])]
        for node in self.meta.graph_def.node:
            if node.op == "ReadVariableOp" and node.input and node_name(node.input[0]) in holders:
                placed[node.name] = holders[node_name(node.input[0])]
        for name, filename in placed.items():
            self.nodes[name] = asset_node(name, filename)
        return [definition.filename for definition in definitions]


def _by_name(items: Any, name_of: Callable[[Any], str], where: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for item in items:
        if named.setdefault(name_of(item), item) is not item:
            raise CorruptModelError(f"{where}: two are named '{name_of(item)}', expected unique names")
    return named


def check_object_id(node_id: int, nodes: Any, where: str) -> None:
    if not 0 <= node_id < len(nodes):
        raise CorruptModelError(f"{where}: object {node_id}, expected 0 to {len(nodes) - 1}")


def concrete_names(item: Any) -> list[str]:
    """The names of the traces of a function object; empty for other objects."""
    if item.WhichOneof("kind") == "bare_concrete_function":
        return [item.bare_concrete_function.concrete_function_name]
    return list(item.function.concrete_functions)


def make_node(name: str, op: str, inputs: list[str]) -> Any:
    """A NodeDef."""
    return protos.message_class("NodeDef")(name=name, op=op, input=inputs)


def make_call(name: str, inputs: list[str], signature: Any) -> Any:
    """A NodeDef that calls the function with this signature."""
    node = make_node(name, "StatefulPartitionedCall", inputs)
    node.attr["f"].func.name = signature.name
    node.attr["Tin"].list.type.extend(arg.type for arg in signature.input_arg)
    node.attr["Tout"].list.type.extend(arg.type for arg in signature.output_arg)
    return node


def asset_node(name: str, filename: str) -> Any:
    """A Const NodeDef whose value is the file name of an asset, marked by an attr `asset`."""
    node = make_node(name, "Const", [])
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = _DT_STRING
    tensor.tensor_shape.SetInParent()
    tensor.string_val.append(filename.encode())
    node.attr["asset"].s = filename.encode()
    return node
