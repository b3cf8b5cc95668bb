"""Variables: maps each variable of the graph to a tensor of the checkpoint.

TensorFlow 2 stores the mapping twice: in the restore op, which assigns restored tensors, and in two object graphs, one
in saved_model.pb and one in the checkpoint, whose children have equal names. TensorFlow 1 has only the restore op.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from porting.errors import CorruptModelError
from porting.saved_model import protos
from porting.saved_model.bundle import OBJECT_GRAPH_KEY, Bundle
from porting.saved_model.calls import data_inputs
from porting.saved_model.names import Names
from porting.saved_model.source import Source, check_object_id
from torch_towers.graph.graph import Node

VARIABLE_OPS = frozenset(("VarHandleOp", "VariableV2", "Variable"))
_VALUE = "VARIABLE_VALUE"
_ATTRIBUTES = "/.ATTRIBUTES/"
_GENERIC_NAME = re.compile(r"Variable(_\d+)?")  # TensorFlow's default name
_MAX_DEPTH = 64  # of a dotted path through objects


class Variable:
    """A variable: its clean name, its checkpoint key, and its value as a view of the file."""

    __slots__ = ("_bundle", "_slice", "checkpoint_key", "dtype", "name", "shape", "trainable")

    def __init__(
        self, bundle: Bundle, name: str, checkpoint_key: str, trainable: bool, part: tuple[slice, ...] | None = None
    ) -> None:
        entry = bundle.entries[checkpoint_key]
        self._bundle = bundle
        self._slice = part
        self.name = name
        self.checkpoint_key = checkpoint_key
        self.dtype: str = entry.dtype.name
        self.shape: tuple[int, ...] = entry.shape if part is None else tuple(index.stop - index.start for index in part)
        self.trainable = trainable

    def numpy(self) -> np.ndarray:
        """The value, read-only; strings as an object array of bytes."""
        value = self._bundle.numpy(self.checkpoint_key)
        return value if self._slice is None else value[self._slice]

    def tensor(self) -> torch.Tensor:
        """The value as a torch tensor over the memory-mapped file. Writes to it never reach the file."""
        value = self._bundle.tensor(self.checkpoint_key)
        return value if self._slice is None else value[self._slice]

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype} {list(self.shape)}, checkpoint_key={self.checkpoint_key!r})"


class Variables:
    """All variables of a model, in `by_key`, with the graph nodes and objects they belong to."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._nodes: dict[str, str] = {}
        self._objects: dict[int, str] = {}
        self._by_tensor: dict[tuple[str, str], str] = {}
        self._names = Names()
        self.by_key: dict[str, Variable] = {}
        if source.bundle is not None:
            self._find(source.bundle)

    def of_object(self, index: int) -> str | None:
        """The key of the variable with object index `index` in the SavedObjectGraph."""
        return self._objects.get(index)

    def of_node(self, node: Node, where: str) -> str:
        """The key of a node's variable. Raises CorruptModelError if the checkpoint lacks it or has another dtype or
        shape."""
        shared_name = text_attr(node, "shared_name")
        key = self._nodes.get(node.name) or self._nodes.get(shared_name)
        if key is None:
            found = (
                "variables/variables.index is missing; copy the whole folder"
                if self._source.bundle is None
                else f"which has {len(self.by_key)} others"
            )
            raise CorruptModelError(
                f"{where}: variable '{shared_name or node.name}' is not in the checkpoint ({found})"
            )
        self.check(key, node.attrs.get("dtype"), node.attrs.get("shape"), where)
        return key

    def check(self, key: str, dtype: Any, shape: Any, where: str) -> None:
        """Checks that graph and checkpoint agree on dtype and shape."""
        if key not in self.by_key:
            raise CorruptModelError(f"{where}: no variable '{key}' in the checkpoint")
        variable = self.by_key[key]
        sizes = variable.shape
        fits = shape is None or (
            len(shape) == len(sizes) and all(size in (None, ours) for size, ours in zip(shape, sizes))
        )
        if dtype != variable.dtype or not fits:
            graph = f"{dtype} {'of unknown rank' if shape is None else list(shape)}"
            raise CorruptModelError(
                f"{where}: variable '{variable.name}' is {graph} in the graph and {variable.dtype} {list(sizes)} in the checkpoint"
            )

    def _find(self, bundle: Bundle) -> None:
        restored = self._restored_nodes(bundle)
        objects, full_names = self._restored_objects(bundle)
        self._merge(bundle, restored, objects)
        trainable = self._trainable_names()
        for index, key in objects.items():
            saved = self._source.objects[index].variable
            names = (clean_name(name) for name in (saved.name, full_names.get(key, ""), key))
            name = next((name for name in names if name and not _GENERIC_NAME.fullmatch(name)), key)
            self._objects[index] = self._add(key, "", name, saved.trainable)
        for name, (key, part) in restored.items():
            dtype = bundle.entries[key].dtype.name
            default = dtype.startswith(("float", "bfloat", "complex"))
            self._nodes[name] = self._add(key, part, name, default if trainable is None else name in trainable)
        used = {key for key, _ in self._by_tensor}
        for key in bundle.entries:  # tensors without a variable in the graph are listed too
            if (
                key != OBJECT_GRAPH_KEY
                and key not in used
                and (_ATTRIBUTES not in key or key.endswith(_ATTRIBUTES + _VALUE))
            ):
                self._add(key, "", clean_name(full_names.get(key, "") or key), trainable=False)

    def _add(self, key: str, part: str, name: str, trainable: bool) -> str:
        if (key, part) not in self._by_tensor:
            bundle = self._source.checkpoint(key)
            index = parse_slice(part, bundle.entries[key].shape, f"{self._source.path}: variable '{name}'")
            unique = self._names.unique(name)
            self.by_key[unique] = Variable(bundle, name, key, trainable, index)
            self._by_tensor[key, part] = unique
        return self._by_tensor[key, part]

    def _restored_nodes(self, bundle: Bundle) -> dict[str, tuple[str, str]]:
        """Variable node of the main graph -> (checkpoint key, slice), from the restore op; without one, by name."""
        source = self._source
        start = source.meta.saver_def.restore_op_name
        restored: dict[str, tuple[str, str]] = {}
        if not start:
            for node in source.nodes.values():
                if node.op in VARIABLE_OPS:
                    shared_name = (
                        node.attr["shared_name"].s.decode("utf-8", "surrogateescape")
                        if "shared_name" in node.attr
                        else ""
                    )
                    key = next((name for name in (shared_name, node.name) if name in bundle.entries), None)
                    if key is not None:
                        restored[node.name] = (key, "")
            return restored
        for scope, node in source.bodies.reachable(source.main, [start]):
            if node.op not in ("AssignVariableOp", "Assign"):
                continue
            operands = data_inputs(node)
            if len(operands) < 2:
                raise CorruptModelError(
                    f"{source.path}: node '{node.name}' ({node.op}): {len(operands)} operands, expected 2"
                )
            target, value = (source.bodies.origin(scope, operand).node for operand in operands[:2])
            if target is not None and target.op in VARIABLE_OPS and value is not None and value.op == "RestoreV2":
                restored[target.name] = source.constants.restored_key(source.bodies.origin(scope, operands[1]))
                source.checkpoint(restored[target.name][0])
        return restored

    def _restored_objects(self, bundle: Bundle) -> tuple[dict[int, str], dict[str, str]]:
        """(variable object -> checkpoint key; checkpoint key -> full variable name), by walking both object graphs."""
        if OBJECT_GRAPH_KEY not in bundle.entries:
            return {}, {}
        where = f"{bundle.index}: {OBJECT_GRAPH_KEY}"
        stored = bundle.numpy(OBJECT_GRAPH_KEY)
        if stored.dtype != np.dtype(object) or stored.size != 1:
            raise CorruptModelError(f"{where}: {stored.dtype} {list(stored.shape)}, expected one string")
        trackable = protos.parse("TrackableObjectGraph", stored.item(), where).nodes
        values = [[item for item in node.attributes if item.name == _VALUE] for node in trackable]
        full_names = {item.checkpoint_key: item.full_name for items in values for item in items}
        keys: dict[int, str] = {}
        for ours, theirs in match_objects(self._source.objects, trackable, str(self._source.path)).items():
            if self._source.objects[ours].WhichOneof("kind") == "variable" and values[theirs]:
                keys[ours] = values[theirs][0].checkpoint_key
                self._source.checkpoint(keys[ours])
        return keys, full_names

    @staticmethod
    def _alike(bundle: Bundle, one: tuple[str, str], other: str) -> bool:
        """Keras 3 saves some variables twice: entries with equal dtype, shape and checksum are copies."""
        a, b = bundle.entries[one[0]], bundle.entries[other]
        return one == (other, "") or (
            not one[1] and not a.slices and (a.dtype, a.shape, a.checksum) == (b.dtype, b.shape, b.checksum)
        )

    def _merge(self, bundle: Bundle, restored: dict[str, tuple[str, str]], objects: Mapping[int, str]) -> None:
        """Adds the nodes that a call passes for captured objects to `restored`, and checks that restore op and object
        graph agree.

        Keras 3 restores copies of its variables, so only the captures tell which tensors belong to the signature's
        variables.
        """
        for node, index in self._source.captures():
            key = objects.get(index)
            if key is not None and not self._alike(bundle, restored.setdefault(node, (key, "")), key):
                raise CorruptModelError(
                    f"{self._source.path}: variable node '{node}' is restored from '{restored[node][0]}' by the restore op and "
                    f"from '{key}' by the object graph; the model contradicts itself"
                )

    def _trainable_names(self) -> set[str] | None:
        """The names in TF1's collection of trainable variables; None if the model has no such collections."""
        collections = self._source.meta.collection_def
        if "variables" not in collections and "trainable_variables" not in collections:
            return None
        stored: Any = (
            collections["trainable_variables"].bytes_list.value if "trainable_variables" in collections else []
        )
        where = f"{self._source.path}: collection trainable_variables"
        return {clean_name(protos.parse("VariableDef", value, where).variable_name) for value in stored}


def text_attr(node: Node, name: str) -> str:
    """A text attr; "" if it is absent or not text."""
    value = node.attrs.get(name)
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else ""


def clean_name(name: str) -> str:
    """ "dense/kernel" of "dense/kernel:0" and of "layer-1/kernel/.ATTRIBUTES/VARIABLE_VALUE"."""
    return re.sub(r":\d+$", "", name).removesuffix(_ATTRIBUTES + _VALUE)


def parse_slice(spec: str, shape: tuple[int, ...], where: str) -> tuple[slice, ...] | None:
    """The slice of a tensor of `shape` that "100 8 0,50:-" names: rows 0 to 49, all columns. None for "", the whole
    tensor."""
    if not spec:
        return None
    *sizes, extents = spec.split(" ")
    try:
        whole = tuple(int(size) for size in sizes)
        pairs = [
            (0, size) if extent == "-" else tuple(int(number) for number in extent.split(","))
            for extent, size in zip(extents.split(":"), whole, strict=True)
        ]
        part = tuple(slice(start, start + length) for start, length in pairs)
    except ValueError as error:
        raise CorruptModelError(f"{where}: slice {spec!r}, expected the form '100 8 0,50:-'") from error
    if whole != shape or any(
        not 0 <= index.start <= index.stop <= size for index, size in zip(part, whole, strict=True)
    ):
        raise CorruptModelError(f"{where}: slice {spec!r} does not fit the checkpoint's shape {list(shape)}")
    return part


def object_paths(nodes: Any, where: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(id, path from the root) of every reachable function object, breadth first, each once. Cycles are legal."""
    parents: dict[int, tuple[int, str, int]] = {0: (0, "", 0)} if len(nodes) else {}  # parent, name, depth
    queue = list(parents)
    for current in queue:
        if nodes[current].WhichOneof("kind") in ("function", "bare_concrete_function"):
            path: list[str] = []
            index = current
            while index:
                index, name, _ = parents[index]
                path.append(name)
            yield current, tuple(reversed(path))
        depth = parents[current][2] + 1
        for child in nodes[current].children:
            check_object_id(child.node_id, nodes, f"{where}: object {current}, child '{child.local_name}'")
            if child.node_id not in parents and depth <= _MAX_DEPTH:
                parents[child.node_id] = (current, child.local_name, depth)
                queue.append(child.node_id)


def match_objects(saved: Any, trackable: Any, where: str) -> dict[int, int]:
    """Maps objects of the SavedObjectGraph to those of the checkpoint's TrackableObjectGraph, by walking the children
    of both."""
    matched: dict[int, int] = {0: 0} if len(saved) and len(trackable) else {}
    queue = list(matched)
    for current in queue:
        ours = trackable[matched[current]]
        by_name: Mapping[str, int] = {child.local_name: child.node_id for child in ours.children}
        for child in saved[current].children:
            check_object_id(child.node_id, saved, f"{where}: object {current}, child '{child.local_name}'")
            if child.local_name not in by_name:
                continue
            other = by_name[child.local_name]
            check_object_id(
                other, trackable, f"{where}: checkpoint object {matched[current]}, child '{child.local_name}'"
            )
            if child.node_id not in matched:
                matched[child.node_id] = other
                queue.append(child.node_id)
    return matched
