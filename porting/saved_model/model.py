"""A SavedModel as plain Python: signatures, functions, variables, tables, assets, and the graph of each entry. Nothing is executed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import protos
from porting.saved_model.bundle import OBJECT_GRAPH_KEY, Bundle, Progress
from porting.saved_model.calls import Bodies, Body, Scope, Site, data_inputs, node_name
from porting.saved_model.constants import Constants
from porting.saved_model.decode import decode_node, decode_shape, decode_tensor
from porting.saved_model.dtypes import dtype_of
from porting.saved_model.files import check_asset
from porting.saved_model.structure import Leaf, composite_leaves, leaves, unique
from porting.saved_model.tables import TABLE_OPS, Table, TextFile, read_text_file
from porting.saved_model.variables import (
    VALUE_ATTRIBUTE,
    VARIABLE_OPS,
    Variable,
    check_object_id,
    clean_name,
    match_objects,
    object_paths,
    parse_slice,
)
from torch_towers.graph import Graph, Node, TensorSpec

T = TypeVar("T")
_log = logging.getLogger(__name__)
_INIT_SIGNATURE, _TRAIN_SIGNATURE = "__saved_model_init_op", "__saved_model_train_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op", "table_initializer")
_UNLISTED = re.compile(r"_(?!_call__$).*|trace_\d+|")  # private functions, and traces, which `path#0` names as well
_GENERIC_NAME = re.compile(r"Variable(_\d+)?")  # what TensorFlow calls a variable that nobody named


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature takes and gives. `defaults` holds the values of inputs that may be left out."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, np.ndarray | torch.Tensor]
    method_name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the library. `inputs` are its arguments in order, `outputs` (name, reference) in the order of its results."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[tuple[str, str], ...]
    nodes: tuple[Node, ...]
    control_outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace of a restored function: its function in the library, its inputs and outputs flattened to tensors, the objects that it captures."""

    function: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    captures: tuple[int, ...]


class _Lazy(Mapping[str, T]):
    """A mapping that makes each value when it is first asked for."""

    def __init__(self, keys: Sequence[str], make: Callable[[str], T]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = make
        self._made: dict[str, T] = {}

    def __getitem__(self, key: str) -> T:
        if key not in self._made:
            if key not in self._keys:
                raise KeyError(key)
            self._made[key] = self._make(key)
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class SavedModel:
    """One meta graph of a SavedModel directory. Made by `read`."""

    def __init__(self, path: Path, meta_graph: Any, tag_sets: Sequence[tuple[str, ...]], bundle: Bundle | None) -> None:
        self.path = path
        self.tags: tuple[str, ...] = tuple(sorted(meta_graph.meta_info_def.tags))
        self.tag_sets = tuple(tag_sets)
        self.tensorflow_version: str = meta_graph.meta_info_def.tensorflow_version
        self._meta = meta_graph
        self._bundle = bundle
        self._where = str(path)
        self._objects = meta_graph.object_graph_def.nodes
        self._function_protos = _by_name(
            meta_graph.graph_def.library.function, lambda function: function.signature.name, f"{path}: function library"
        )
        self._main = Scope(Body("", _by_name(meta_graph.graph_def.node, lambda node: node.name, f"{path}: graph")))
        self._place_assets()
        self._bodies = Bodies(self._function_protos, self._where)
        self._constants = Constants(self._bodies, self._restore)
        self._variable_keys, self.variables = self._find_variables()
        self._fillers = self._find_fillers()
        self.tables: Mapping[str, Table] = self._find_tables()
        self.functions: Mapping[str, Function] = _Lazy(list(self._function_protos), self._function)
        names = [name for name in meta_graph.signature_def if name not in (_INIT_SIGNATURE, _TRAIN_SIGNATURE)]
        self.signatures: Mapping[str, Signature] = {name: self._signature(name) for name in sorted(names)}
        self.restored_functions: Mapping[str, tuple[Trace, ...]] = _Lazy(list(self._function_paths), self._traces)

    # Reading values

    def verify(self, progress: Progress | None = None) -> None:
        """Checks the checksum of every tensor of the checkpoint. `progress` is called with (bytes done, bytes in all)."""
        if self._bundle is not None:
            self._bundle.verify(progress)

    def _restore(self, key: str) -> np.ndarray:
        return self._checked_bundle(key).numpy(key)

    def _checked_bundle(self, key: str) -> Bundle:
        if self._bundle is None:
            raise CorruptModelError(
                f"{self.path}: '{key}' is to be restored, but variables/variables.index is missing; copy the whole folder"
            )
        if key not in self._bundle.entries:
            raise CorruptModelError(
                f"{self._bundle.index}: no tensor '{key}', which the graph restores; the checkpoint is of another model"
            )
        return self._bundle

    # Assets

    def _place_assets(self) -> None:
        """Puts a constant with an attr `asset` in place of every node that TensorFlow feeds with the path of an asset when it loads the model."""
        definitions = list(self._meta.asset_file_def)
        if not definitions and "saved_model_assets" in self._meta.collection_def:  # models of TensorFlow 1
            for value in self._meta.collection_def["saved_model_assets"].any_list.value:
                definitions.append(
                    protos.parse("AssetFileDef", value.value, f"{self.path}: collection saved_model_assets")
                )
        nodes = dict(self._main.body.nodes)
        self._asset_names = [definition.filename for definition in definitions]
        placed: dict[str, Any] = {}
        for definition in definitions:
            name = node_name(definition.tensor_info.name)
            if name not in nodes:
                raise CorruptModelError(
                    f"{self.path}: asset '{definition.filename}' is fed to node '{name}', which is not in the graph"
                )
            placed[name] = nodes[name] = _asset_node(name, definition.filename)
        holders = {
            node_name(node.input[0]): placed[node_name(node.input[1])]
            for node in self._meta.graph_def.node
            if node.op == "AssignVariableOp" and len(node.input) >= 2 and node_name(node.input[1]) in placed
        }
        for node in self._meta.graph_def.node:  # since TensorFlow 2.10 the path goes through a variable
            if node.op == "ReadVariableOp" and node.input and node_name(node.input[0]) in holders:
                nodes[node.name] = _asset_node(
                    node.name, holders[node_name(node.input[0])].attr["asset"].s.decode("utf-8", "surrogateescape")
                )
        self._main.body.nodes = nodes

    # Variables

    def _find_variables(self) -> tuple[dict[str, str], dict[str, Variable]]:
        """(key in `variables` of each variable node of the graph by name, and of each object as "object 7"; the variables)."""
        if self._bundle is None:
            return {}, {}
        restored = self._restored_nodes()
        objects, attributes = self._restored_objects()
        self._merge(restored, objects)
        trainable = self._trainable_names()
        keys: dict[str, str] = {}
        by_source: dict[tuple[str, str], str] = {}
        variables: dict[str, Variable] = {}

        def add(key: str, spec: str, name: str, is_trainable: bool) -> str:
            if (key, spec) not in by_source:
                part = parse_slice(
                    spec, self._checked_bundle(key).entries[key].shape, f"{self.path}: variable '{name}'"
                )
                variable = Variable(self._checked_bundle(key), name, key, is_trainable, part)
                by_source[key, spec] = unique(name or key, variables.__contains__)
                variables[by_source[key, spec]] = variable
            return by_source[key, spec]

        for index, key in objects.items():
            saved = self._objects[index].variable
            names = (clean_name(name) for name in (saved.name, attributes.get(key, ""), key))
            name = next(name for name in names if name and not _GENERIC_NAME.fullmatch(name))
            keys[f"object {index}"] = add(key, "", name, saved.trainable)
        for name, (key, spec) in restored.items():
            dtype = self._checked_bundle(key).entries[key].dtype.name
            is_trainable = (
                name in trainable if trainable is not None else dtype.startswith(("float", "bfloat", "complex"))
            )
            keys[name] = add(key, spec, name, is_trainable)
        sources = {key for key, _ in by_source}
        for key, entry in self._bundle.entries.items():
            is_variable = "/.ATTRIBUTES/" not in key or key.endswith("/" + VALUE_ATTRIBUTE)
            if key != OBJECT_GRAPH_KEY and key not in sources and is_variable:
                add(key, "", clean_name(attributes.get(key, "") or key), is_trainable=False)
        return keys, variables

    def _restored_nodes(self) -> dict[str, tuple[str, str]]:
        """Variable node of the main graph -> (checkpoint key, slice), from what the restore op assigns; without one, by name."""
        start = self._meta.saver_def.restore_op_name
        restored: dict[str, tuple[str, str]] = {}
        if start:
            for scope, node in self._bodies.reachable(self._main, [start]):
                if node.op not in ("AssignVariableOp", "Assign"):
                    continue
                operands = data_inputs(node)
                if len(operands) < 2:
                    raise CorruptModelError(
                        f"{self.path}: node '{node.name}' ({node.op}): {len(operands)} operands, expected 2"
                    )
                target, value = (self._bodies.origin(scope, operand) for operand in operands[:2])
                if (
                    target.node is not None
                    and target.node.op in VARIABLE_OPS
                    and value.node is not None
                    and value.node.op == "RestoreV2"
                ):
                    restored[target.node.name] = self._constants.restored_key(value)
        elif self._bundle is not None:
            for node in self._main.body.nodes.values():
                if node.op in VARIABLE_OPS:
                    names = (
                        node.name,
                        node.attr["shared_name"].s.decode("utf-8", "surrogateescape")
                        if "shared_name" in node.attr
                        else "",
                    )
                    restored |= {node.name: (name, "") for name in names if name in self._bundle.entries}
        for key, _ in restored.values():
            self._checked_bundle(key)
        return restored

    def _restored_objects(self) -> tuple[dict[int, str], dict[str, str]]:
        """(SavedVariable object -> checkpoint key; checkpoint key -> the variable's full name) by walking both object graphs."""
        assert self._bundle is not None
        if OBJECT_GRAPH_KEY not in self._bundle.entries:
            return {}, {}
        where = f"{self._bundle.index}: {OBJECT_GRAPH_KEY}"
        stored = self._bundle.numpy(OBJECT_GRAPH_KEY)
        if stored.dtype != object or stored.size != 1:
            raise CorruptModelError(f"{where}: {stored.dtype} {list(stored.shape)}, expected one string")
        trackable = protos.parse("TrackableObjectGraph", stored.item(), where).nodes
        attributes = {
            item.checkpoint_key: item.full_name
            for node in trackable
            for item in node.attributes
            if item.name == VALUE_ATTRIBUTE
        }
        keys: dict[int, str] = {}
        for ours, theirs in match_objects(self._objects, trackable, self._where).items():
            if self._objects[ours].WhichOneof("kind") == "variable":
                key = next(
                    (item.checkpoint_key for item in trackable[theirs].attributes if item.name == VALUE_ATTRIBUTE), None
                )
                if key is not None:
                    self._checked_bundle(key)
                    keys[ours] = key
        return keys, attributes

    def _merge(self, restored: dict[str, tuple[str, str]], objects: Mapping[int, str]) -> None:
        """Adds to `restored` the nodes that a call passes for captured objects, and checks that restore op and object graph agree.

        Keras 3 restores copies of its variables, so that only the captures tell which tensor belongs to the variables that the signature uses.
        """
        concrete = self._meta.object_graph_def.concrete_functions
        for node in self._main.body.nodes.values():
            name = node.attr["f"].func.name if "f" in node.attr else node.op
            if name not in concrete:
                continue
            for operand, index in zip(data_inputs(node)[::-1], list(concrete[name].bound_inputs)[::-1], strict=False):
                key = objects.get(index)
                if key is not None and restored.setdefault(node_name(operand), (key, "")) != (key, ""):
                    raise CorruptModelError(
                        f"{self.path}: variable node '{node_name(operand)}' is restored from '{restored[node_name(operand)][0]}' by the restore op and "
                        f"from '{key}' by the object graph; the model contradicts itself"
                    )

    def _trainable_names(self) -> set[str] | None:
        """The names in TF1's collection of trainable variables; None where the model has no collections of variables."""
        collections = self._meta.collection_def
        if "variables" not in collections and "trainable_variables" not in collections:
            return None
        stored = collections["trainable_variables"].bytes_list.value if "trainable_variables" in collections else []
        definitions = [
            protos.parse("VariableDef", value, f"{self.path}: collection trainable_variables") for value in stored
        ]
        return {clean_name(definition.variable_name) for definition in definitions}

    def variable_key(self, node: Node) -> str:
        """The key in `variables` of a variable node. Raises CorruptModelError where the checkpoint lacks it or holds another dtype or shape."""
        shared_name = node.attrs.get("shared_name", b"").decode("utf-8", "surrogateescape")
        key = self._variable_keys.get(node.name) or self._variable_keys.get(shared_name)
        if key is None:
            raise CorruptModelError(
                f"{self.path}: variable '{shared_name or node.name}' is in the graph but not in the checkpoint "
                f"({'variables/variables.index is missing' if self._bundle is None else f'{len(self.variables)} other variables are'})"
            )
        variable = self.variables[key]
        dtype, shape = node.attrs.get("dtype"), node.attrs.get("shape")
        fits = shape is None or (
            len(shape) == len(variable.shape)
            and all(a in (None, b) for a, b in zip(shape, variable.shape, strict=True))
        )
        if dtype != variable.dtype or not fits:
            raise CorruptModelError(
                f"{self.path}: variable '{node.name}' is {dtype} {_sizes(shape)} in the graph and {variable.dtype} {list(variable.shape)} in the checkpoint"
            )
        return key

    # Tables

    def _find_fillers(self) -> dict[str, list[Site]]:
        """Key of a table -> the nodes that fill it, in order: those that the restore op runs, then those that the init op runs."""
        starts = [self._meta.saver_def.restore_op_name] if self._meta.saver_def.restore_op_name else []
        if _INIT_SIGNATURE in self._meta.signature_def:
            starts += [info.name for info in self._meta.signature_def[_INIT_SIGNATURE].outputs.values()]
        for name in _INIT_COLLECTIONS:
            if name in self._meta.collection_def:
                starts += list(self._meta.collection_def[name].node_list.value)
        fillers: dict[str, list[Site]] = {}
        for scope, node in self._bodies.reachable(self._main, starts):
            if node.op.removesuffix("V2") in (
                "LookupTableImport",
                "InitializeTable",
                "InitializeTableFromTextFile",
                "LookupTableInsert",
                "InitializeTableFromDataset",
            ):
                operands = data_inputs(node)
                target = self._bodies.origin(scope, operands[0]) if operands else None
                if target is not None and target.node is not None and target.node.op in TABLE_OPS:
                    fillers.setdefault(_table_key(target.node, target.scope.body.name), []).append(
                        Site(scope, node, "", node.name)
                    )
        return fillers

    def _find_tables(self) -> dict[str, Table]:
        tables: dict[str, Table] = {}
        bodies = [
            ("", self._main.body.nodes.values()),
            *((name, function.node_def) for name, function in self._function_protos.items()),
        ]
        for body, nodes in bodies:
            for node in nodes:
                if node.op in TABLE_OPS:
                    key = _table_key(node, body)
                    if key not in tables:
                        tables[key] = self._table(key, node)
        return tables

    def _table(self, key: str, node: Any) -> Table:
        where = f"{self.path}: table '{key}'"
        dtypes = [
            dtype_of(node.attr[name].type, where).name if name in node.attr else ""
            for name in ("key_dtype", "value_dtype")
        ]
        mutable = "Mutable" in node.op
        fillers = self._fillers.get(key, [])
        asset = None
        if fillers and fillers[-1].node.op.startswith("InitializeTableFromTextFile"):
            asset = self._asset_of(fillers[-1])
        file = None if asset is None else self.path / "assets" / asset

        def load() -> tuple[np.ndarray, np.ndarray]:
            if not fillers:
                if mutable:
                    raise PortingError(
                        f"{where}: nothing in the model fills this mutable table, so its contents when served are unknown"
                    )
                raise CorruptModelError(f"{where}: no initializer fills it")
            site = fillers[-1]
            op = site.node.op.removesuffix("V2")
            operands = data_inputs(site.node)
            if op == "InitializeTableFromTextFile":
                if asset is None:
                    raise PortingError(
                        f"{where}: its vocabulary file '{operands[1]}' is not an asset of the SavedModel, so it cannot be read"
                    )
                attrs = decode_node(site.node, self._where).attrs
                form = TextFile(
                    attrs["key_index"],
                    attrs["value_index"],
                    attrs.get("vocab_size", -1),
                    attrs.get("delimiter", b"\t"),
                    attrs.get("offset", 0),
                )
                return read_text_file(check_asset(self.path, asset), form, dtypes[0], dtypes[1])
            if op not in ("LookupTableImport", "InitializeTable") or len(operands) != 3:
                raise PortingError(
                    f"{where}: filled by {site.node.op} with {len(operands)} operands, which is not supported"
                )
            keys, values = (self._constants.value(site.scope, operand) for operand in operands[1:])
            return keys, values

        return Table(key, dtypes[0], dtypes[1], file, mutable, load)

    def _asset_of(self, site: Site) -> str | None:
        operands = data_inputs(site.node)
        origin = self._bodies.origin(site.scope, operands[1]) if len(operands) > 1 else None
        if origin is None or origin.node is None or "asset" not in origin.node.attr:
            return None
        return origin.node.attr["asset"].s.decode("utf-8", "surrogateescape")

    # Functions

    def _function(self, name: str) -> Function:
        proto = self._function_protos[name]
        where = f"{self.path}: function '{name}'"
        inputs: list[TensorSpec] = []
        for i, arg in enumerate(proto.signature.input_arg):
            attrs = proto.arg_attr[i].attr if i in proto.arg_attr else {}
            shapes = attrs["_output_shapes"].list.shape if "_output_shapes" in attrs else []
            inputs.append(
                TensorSpec(
                    arg.name,
                    dtype_of(arg.type, where).name,
                    decode_shape(shapes[0], where) if len(shapes) == 1 else None,
                )
            )
        names = {node.name for node in proto.node_def}
        args = {spec.name for spec in inputs}
        if len(names) != len(proto.node_def) or len(args) != len(inputs) or names & args:
            raise CorruptModelError(f"{where}: two nodes or arguments of one name")
        nodes = tuple(self._leaf(decode_node(node, where), name) for node in proto.node_def)
        for node in nodes:
            _check_inputs(node, names | args, where)
        outputs: list[tuple[str, str]] = []
        for arg in proto.signature.output_arg:
            if arg.name not in proto.ret or node_name(proto.ret[arg.name]) not in names | args:
                raise CorruptModelError(f"{where}: output '{arg.name}' is made by no node")
            outputs.append((arg.name, proto.ret[arg.name]))
        controls = tuple(
            proto.control_ret[output] for output in proto.signature.control_output if output in proto.control_ret
        )
        return Function(name, tuple(inputs), tuple(outputs), nodes, controls)

    def _leaf(self, node: Node, body: str) -> Node:
        """`node` with the key of its variable or table, or the checked path of its asset, among its attrs."""
        if node.op in VARIABLE_OPS:
            return Node(node.name, node.op, node.inputs, {**node.attrs, "variable": self.variable_key(node)})
        if node.op in TABLE_OPS:
            shared_name = node.attrs.get("shared_name", b"").decode("utf-8", "surrogateescape")
            return Node(
                node.name,
                node.op,
                node.inputs,
                {**node.attrs, "table": shared_name or (f"{body}/{node.name}" if body else node.name)},
            )
        if node.op == "Const" and "asset" in node.attrs:
            path = check_asset(self.path, node.attrs["asset"].decode("utf-8", "surrogateescape"))
            return Node(node.name, node.op, node.inputs, {**node.attrs, "asset": path})
        return node

    # Entries

    def _signature(self, name: str) -> Signature:
        proto = self._meta.signature_def[name]
        where = f"{self.path}: signature '{name}'"
        inputs = {spec.name: spec for key in sorted(proto.inputs) for spec, _ in _expand(key, proto.inputs[key], where)}
        outputs = {
            spec.name: spec for key in sorted(proto.outputs) for spec, _ in _expand(key, proto.outputs[key], where)
        }
        defaults = {
            key: decode_tensor(proto.defaults[key], f"{where}: default of '{key}'") for key in sorted(proto.defaults)
        }
        return Signature(name, inputs, outputs, defaults, proto.method_name)

    @cached_property
    def _function_paths(self) -> dict[str, int]:
        paths = {".".join(path): index for index, path in object_paths(self._objects, self._where)}
        return {
            path: index
            for path, index in paths.items()
            if self._objects[index].WhichOneof("kind") in ("function", "bare_concrete_function")
        }

    def entries(self) -> list[str]:
        """What `graph` takes: signatures, then restored functions by their dotted paths, each trace of several as `path#0`, `path#1`, ..."""
        names = list(self.signatures)
        for path in self._function_paths:
            parts = path.split(".")
            if parts[0] in ("signatures", "keras_api") or any(_UNLISTED.fullmatch(part) for part in parts):
                continue
            traces = len(self.restored_functions[path])
            names += [path] if traces == 1 else [f"{path}#{i}" for i in range(traces)]
        return names

    def default_entry(self) -> str:
        """serving_default, else serve, else the only signature, else `__call__`. Raises PortingError, which lists the entries."""
        for name in ("serving_default", "serve"):
            if name in self.signatures:
                return name
        if len(self.signatures) == 1:
            return next(iter(self.signatures))
        if not self.signatures and "__call__" in self._function_paths:
            return "__call__"
        raise PortingError(
            f"{self.path}: no default among its entries, name one of: {', '.join(self.entries()) or 'there are none'}"
        )

    def graph(self, entry: str) -> Graph:
        """The TensorFlow ops behind `entry`, calls not inlined: what is reachable backwards from the outputs, in topological order."""
        if entry in self.signatures:
            return self._signature_graph(entry)
        path, _, number = entry.partition("#")
        index = self._find_function(path.removeprefix("root."))
        if index is None:
            raise PortingError(
                f"{self.path}: no entry '{entry}', name one of: {', '.join(self.entries()) or 'there are none'}"
            )
        traces = self._traces_of(index, path)
        if not traces or (number and not (number.isascii() and number.isdigit() and int(number) < len(traces))):
            raise PortingError(f"{self.path}: '{path}' has {len(traces)} traces, '{entry}' is not one of them")
        if len(traces) > 1 and not number:
            _log.info("%s: '%s' has %d traces, the first is taken", self.path, path, len(traces))
        return self._trace_graph(traces[int(number or 0)])

    def _signature_graph(self, name: str) -> Graph:
        proto = self._meta.signature_def[name]
        where = f"{self.path}: signature '{name}'"
        inputs = [pair for key in sorted(proto.inputs) for pair in _expand(key, proto.inputs[key], where)]
        outputs = [pair for key in sorted(proto.outputs) for pair in _expand(key, proto.outputs[key], where)]
        for spec, reference in inputs + outputs:
            if node_name(reference) not in self._main.body.nodes:
                raise CorruptModelError(f"{where}: '{spec.name}' is tensor '{reference}', which is not in the graph")
        return self._entry_graph(
            self._main.body.nodes, inputs, {spec.name: reference for spec, reference in outputs}, where
        )

    def _entry_graph(
        self,
        protos_by_name: Mapping[str, Any],
        inputs: Sequence[tuple[TensorSpec, str]],
        outputs: Mapping[str, str],
        where: str,
    ) -> Graph:
        """The graph from `inputs` (with the tensor that each is fed to) to `outputs`."""
        fed: dict[str, str] = {}
        for spec, reference in inputs:
            if ":" in spec.name or spec.name.startswith("^"):
                raise PortingError(f"{where}: input '{spec.name}' has a ':' or '^' in its name, which is not supported")
            if fed.setdefault(_normal(reference), spec.name) != spec.name:
                raise PortingError(
                    f"{where}: inputs '{spec.name}' and '{fed[_normal(reference)]}' are the same tensor '{reference}'"
                )
        order = _topological(protos_by_name, list(outputs.values()), fed, where)
        input_names = {spec.name for spec, _ in inputs}
        taken = input_names | set(order)
        renamed: dict[str, str] = {}
        for name in order:
            if name in input_names:
                renamed[name] = unique(name, taken.__contains__)
                taken.add(renamed[name])

        def rewrite(reference: str) -> str | None:
            if reference.startswith("^"):
                name = reference[1:]
                return None if name not in order else "^" + renamed.get(name, name)
            reference = _normal(reference)
            if reference in fed:
                return fed[reference]
            name, colon, output = reference.partition(":")
            return renamed.get(name, name) + colon + output

        nodes: list[Node] = []
        for name in order:
            node = self._leaf(decode_node(protos_by_name[name], where), "")
            _check_inputs(node, protos_by_name, where)
            operands = tuple(operand for operand in map(rewrite, node.inputs) if operand is not None)
            nodes.append(Node(renamed.get(name, name), node.op, operands, node.attrs))
        return Graph(
            tuple(spec for spec, _ in inputs),
            tuple(nodes),
            {name: rewrite(reference) or "" for name, reference in outputs.items()},
        )

    # Restored functions

    def _find_function(self, path: str) -> int | None:
        """The function object at a dotted path, by any of the names that lead to it."""
        if path in self._function_paths:
            return self._function_paths[path]
        current = 0
        for part in path.split("."):
            current = (
                next((child.node_id for child in self._objects[current].children if child.local_name == part), -1)
                if len(self._objects)
                else -1
            )
            if current < 0:
                return None
            check_object_id(current, self._objects, f"{self.path}: path '{path}'")
        return current if self._objects[current].WhichOneof("kind") in ("function", "bare_concrete_function") else None

    def _traces(self, path: str) -> tuple[Trace, ...]:
        return self._traces_of(self._function_paths[path], path)

    def _traces_of(self, index: int, path: str) -> tuple[Trace, ...]:
        names = _concrete_names(self._objects[index])
        return tuple(self._trace(name, f"{self.path}: '{path}'") for name in names)

    def _trace(self, name: str, where: str) -> Trace:
        concrete = self._meta.object_graph_def.concrete_functions
        if name not in concrete or name not in self._function_protos:
            raise CorruptModelError(
                f"{where}: its function '{name}' is missing from the {'object graph' if name not in concrete else 'library'}"
            )
        captures = tuple(concrete[name].bound_inputs)
        for index in captures:
            check_object_id(index, self._objects, f"{where}: capture of function '{name}'")
        function = self._function_protos[name].signature
        arguments = list(function.input_arg)
        if len(captures) > len(arguments):
            raise CorruptModelError(
                f"{where}: function '{name}' takes {len(arguments)} tensors and captures {len(captures)}"
            )
        arguments = arguments[: len(arguments) - len(captures)]
        taken: set[str] = set()
        inputs: list[TensorSpec] = []
        structure = list(leaves(concrete[name].canonicalized_input_signature, where))
        if len(structure) != len(
            arguments
        ):  # the structure leaves tensors out: the function's own arguments are the truth
            structure = [Leaf((), arg.name, "", "", None) for arg in arguments]
        for leaf, arg in zip(structure, arguments, strict=True):
            dtype = dtype_of(arg.type, where).name
            label = unique(_input_name(leaf, arg.name), taken.__contains__)
            taken.add(label)
            inputs.append(TensorSpec(label, dtype, leaf.shape))
        return Trace(
            name,
            tuple(inputs),
            tuple(_output_names(list(leaves(concrete[name].output_signature, where)), len(function.output_arg))),
            captures,
        )

    def _trace_graph(self, trace: Trace) -> Graph:
        where = f"{self.path}: function '{trace.function}'"
        nodes, captured = self._capture_nodes(trace.captures, where)
        inputs: list[tuple[TensorSpec, str]] = []
        for i, spec in enumerate(trace.inputs):
            name = unique(f"input_{i}", nodes.__contains__)
            nodes[name] = _make_node(name, "Placeholder", [])
            inputs.append((spec, name))
        call = unique("call", nodes.__contains__)
        nodes[call] = _make_node(
            call, "StatefulPartitionedCall", [*(name for _, name in inputs), *captured], function=trace.function
        )
        return self._entry_graph(nodes, inputs, {name: f"{call}:{i}" for i, name in enumerate(trace.outputs)}, where)

    def _capture_nodes(self, captures: Sequence[int], where: str) -> tuple[dict[str, Any], list[str]]:
        """(nodes that stand for captured objects, by name; the name for each of `captures`)."""
        nodes: dict[str, Any] = {}
        made: dict[int, str] = {}
        for index in captures:
            if index in made:
                continue
            item = self._objects[index]
            kind = item.WhichOneof("kind")
            if kind == "variable":
                key = self._variable_keys.get(f"object {index}")
                if key is None:
                    raise CorruptModelError(
                        f"{where}: captures variable '{item.variable.name}' (object {index}), which is not in the checkpoint"
                    )
                name = unique(key, nodes.__contains__)
                nodes[name] = _make_node(name, "VarHandleOp", [])
                nodes[name].attr["dtype"].type = item.variable.dtype
                nodes[name].attr["shape"].shape.CopyFrom(item.variable.shape)
                nodes[name].attr["shared_name"].s = f"object {index}".encode()
            elif kind == "constant":
                operation = item.constant.operation
                if operation not in self._main.body.nodes:
                    raise CorruptModelError(
                        f"{where}: captures constant '{operation}' (object {index}), which is not in the graph"
                    )
                name = unique(operation, nodes.__contains__)
                nodes[name] = _make_node(name, "Const", [])
                nodes[name].attr["value"].CopyFrom(self._main.body.nodes[operation].attr["value"])
                nodes[name].attr["dtype"].CopyFrom(self._main.body.nodes[operation].attr["dtype"])
            elif kind == "asset":
                if not 0 <= item.asset.asset_file_def_index < len(self._asset_names):
                    raise CorruptModelError(
                        f"{where}: captures asset {item.asset.asset_file_def_index}, expected 0 to {len(self._asset_names) - 1}"
                    )
                name = unique(f"asset_{item.asset.asset_file_def_index}", nodes.__contains__)
                nodes[name] = _asset_node(name, self._asset_names[item.asset.asset_file_def_index])
            else:
                creator = self._child_function(index, "_create_resource")
                if creator is None:
                    raise PortingError(f"{where}: captures object {index} of kind {kind}, which is not supported")
                _, name = nodes, unique(f"resource_{index}", nodes.__contains__)
                nodes[name] = _make_node(name, "StatefulPartitionedCall", [], function=creator)
            made[index] = name
        return nodes, [made[index] for index in captures]

    def _child_function(self, index: int, name: str) -> str | None:
        """The concrete function of the child `name` of an object."""
        for child in self._objects[index].children:
            if child.local_name == name:
                check_object_id(child.node_id, self._objects, f"{self.path}: object {index}, child '{name}'")
                return next(iter(_concrete_names(self._objects[child.node_id])), None)
        return None


def _by_name(items: Any, name_of: Callable[[Any], str], where: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for item in items:
        if named.setdefault(name_of(item), item) is not item:
            raise CorruptModelError(f"{where}: two are named '{name_of(item)}', expected unique names")
    return named


def _concrete_names(item: Any) -> list[str]:
    if item.WhichOneof("kind") == "bare_concrete_function":
        return [item.bare_concrete_function.concrete_function_name]
    return list(item.function.concrete_functions)


def _make_node(name: str, op: str, inputs: Sequence[str], function: str | None = None) -> Any:
    node = protos.message_class("NodeDef")(name=name, op=op, input=inputs)
    if function is not None:
        node.attr["f"].func.name = function
    return node


def _asset_node(name: str, filename: str) -> Any:
    node = _make_node(name, "Const", [])
    node.attr["asset"].s = node_bytes = filename.encode("utf-8", "surrogateescape")
    node.attr["dtype"].type = node.attr["value"].tensor.dtype = 7  # DT_STRING
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.string_val.append(node_bytes)
    return node


def _table_key(node: Any, body: str) -> str:
    shared_name = node.attr["shared_name"].s.decode("utf-8", "surrogateescape") if "shared_name" in node.attr else ""
    return shared_name or (f"{body}/{node.name}" if body else node.name)


def _expand(name: str, info: Any, where: str) -> list[tuple[TensorSpec, str]]:
    """(spec, tensor) of each dense tensor of a TensorInfo; the parts of sparse and ragged ones are named as TensorFlow names them when it loads a model."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        dtype = dtype_of(info.dtype, where).name
        shape = decode_shape(info.tensor_shape, where)
        rank = None if shape is None else len(shape)
        parts = (
            ("indices", "int64", (None, rank), info.coo_sparse.indices_tensor_name),
            ("values", dtype, (None,), info.coo_sparse.values_tensor_name),
            ("dense_shape", "int64", (rank,), info.coo_sparse.dense_shape_tensor_name),
        )
        return [
            (TensorSpec(f"{name}_{part}", part_dtype, part_shape), tensor)
            for part, part_dtype, part_shape, tensor in parts
        ]
    if kind == "composite_tensor":
        composite = info.composite_tensor
        parts = composite_leaves(composite.type_spec, where)
        expanded: list[tuple[TensorSpec, str]] = []
        for i, component in enumerate(composite.components):
            spec = TensorSpec(
                f"{name}_component_{i}",
                dtype_of(component.dtype, where).name,
                decode_shape(component.tensor_shape, where),
            )
            expanded.append((spec, component.name))
        if parts and len(parts) != len(expanded):
            raise CorruptModelError(
                f"{where}: '{name}' has {len(expanded)} components, expected {len(parts)} by its type"
            )
        return expanded
    return [(TensorSpec(name, dtype_of(info.dtype, where).name, decode_shape(info.tensor_shape, where)), info.name)]


def _input_name(leaf: Leaf, argument: str) -> str:
    keys = [str(part) for part in leaf.path if isinstance(part, str)]
    # paths begin with (0, position) for positional and (1, keyword) for keyword arguments
    name = "/".join(keys) or leaf.name or argument
    return f"{name}/{leaf.component}" if leaf.component else name


def _output_names(structure: list[Leaf], count: int) -> list[str]:
    """A lone result is "output" (or "values", "splits0", ...), others go by their dict keys or as "output_0", "output_1", ..."""
    if len(structure) != count:
        return [f"output_{i}" for i in range(count)]
    names: list[str] = []
    for leaf in structure:
        keys = [str(part) if isinstance(part, str) else f"output_{part}" for part in leaf.path]
        name = "/".join([*keys, leaf.component] if leaf.component else keys) or "output"
        names.append(unique(name, names.__contains__))
    return names


def _normal(reference: str) -> str:
    return reference.removesuffix(":0")


def _topological(
    nodes: Mapping[str, Any], outputs: Sequence[str], fed: Mapping[str, str], where: str
) -> dict[str, None]:
    """Names of the nodes that `outputs` need, each behind what it needs itself. A cut is made at tensors that are fed.

    Only a NextIteration, the end of a TF1 loop, may close a cycle.
    """
    order: dict[str, None] = {}
    state: dict[str, bool] = {}  # False while what a node needs is being visited, True afterwards
    stack: list[tuple[str, bool]] = []

    def push(reference: str) -> None:
        if reference.startswith("^") or _normal(reference) not in fed:
            if reference.startswith("^") and reference[1:] in fed:
                return
            stack.append((node_name(reference), False))

    deferred: list[str] = []
    for output in reversed(outputs):
        push(output)
    while stack:
        name, done = stack.pop()
        if done:
            state[name] = True
            order[name] = None
            if not stack and deferred:
                push(deferred.pop())
            continue
        if name in state:
            if not state[name]:
                raise CorruptModelError(f"{where}: node '{name}' needs its own result, the graph has a cycle")
            if not stack and deferred:
                push(deferred.pop())
            continue
        if name not in nodes:
            raise CorruptModelError(f"{where}: node '{name}' is referred to but not in the graph")
        state[name] = False
        stack.append((name, True))
        for reference in reversed(nodes[name].input):
            target = nodes.get(node_name(reference))
            if target is not None and target.op in ("NextIteration", "RefNextIteration"):
                deferred.append(reference)
            else:
                push(reference)
    return order


def _check_inputs(node: Node, known: Any, where: str) -> None:
    """Every input of `node` names a node; its attr N counts them."""
    for reference in node.inputs:
        if node_name(reference) not in known:
            raise CorruptModelError(
                f"{where}: node '{node.name}' ({node.op}) takes '{reference}', which is not in the graph"
            )
    operands = sum(not reference.startswith("^") for reference in node.inputs)
    number = node.attrs.get("N")
    if isinstance(number, int) and number > operands:
        raise CorruptModelError(
            f"{where}: node '{node.name}' ({node.op}) has {operands} operands, expected at least N = {number}"
        )


def _sizes(shape: Any) -> str:
    return "of unknown shape" if shape is None else str(list(shape))
