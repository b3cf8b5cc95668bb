"""A SavedModel as plain Python: signatures, functions, variables, tables, and the graph of each entry. Nothing is
executed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from porting.budget import Weight
from porting.errors import CorruptModelError, PortingError
from porting.saved_model.bundle import Bundle, Progress
from porting.saved_model.calls import node_name
from porting.saved_model.decode import decode_node, decode_shape, decode_tensor
from porting.saved_model.dtypes import dtype_of
from porting.saved_model.entries import Leaves, entry_graph, expand
from porting.saved_model.node_checks import NodeChecks
from porting.saved_model.order import topological
from porting.saved_model.restored import RestoredFunctions, Trace
from porting.saved_model.source import Source
from porting.saved_model.tables import Table, Tables
from porting.saved_model.variables import Variable, Variables
from torch_towers.graph.graph import Graph, Node, TensorSpec

_log = logging.getLogger(__name__)
_INTERNAL_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a signature. `defaults` holds the values of optional inputs."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, np.ndarray | torch.Tensor]
    method_name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A library function: `inputs` are its arguments in order, `outputs` its results as (name, reference) in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[tuple[str, str], ...]
    nodes: tuple[Node, ...]
    control_outputs: tuple[str, ...]


class _Lazy(Mapping[str, _Value]):
    """A mapping that creates its values lazily."""

    def __init__(self, keys: Iterable[str], make: Callable[[str], _Value]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = make
        self._made: dict[str, _Value] = {}

    def __getitem__(self, key: str) -> _Value:
        if key not in self._made:
            if key not in self._keys:
                raise KeyError(key)
            self._made[key] = self._make(key)
        return self._made[key]

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class SavedModel:
    """One meta graph of a SavedModel directory, returned by `read`."""

    def __init__(self, path: Path, meta_graph: Any, tag_sets: Sequence[tuple[str, ...]], bundle: Bundle | None) -> None:
        self.path = path
        self.tags: tuple[str, ...] = tuple(sorted(meta_graph.meta_info_def.tags))
        self.tag_sets = tuple(tag_sets)
        self.tensorflow_version: str = meta_graph.meta_info_def.tensorflow_version
        self._source = Source(path, meta_graph, bundle)
        self._variables = Variables(self._source)
        tables = Tables(self._source)
        self._leaves = Leaves(self._source, self._variables, tables)
        self._restored = RestoredFunctions(self._source, self._variables)
        self._graphs: dict[str, Graph] = {}
        self._ordered = False  # the main graph is known to have no cycle
        self.variables: Mapping[str, Variable] = self._variables.by_key
        self.tables: Mapping[str, Table] = tables.by_key
        self.functions: Mapping[str, Function] = _Lazy(self._source.functions, self._function)
        self.restored_functions: Mapping[str, tuple[Trace, ...]] = _Lazy(self._restored.paths, self._traces)
        names = sorted(name for name in meta_graph.signature_def if name not in _INTERNAL_SIGNATURES)
        self.signatures: Mapping[str, Signature] = {name: self._signature(name) for name in names}

    def verify(self, progress: Progress | None = None) -> None:
        """Verifies the checksum of every tensor of the checkpoint, calling `progress` with (bytes done, total
        bytes)."""
        if self._source.bundle is not None:
            self._source.bundle.verify(progress)

    def weight(self) -> Weight:
        """The size of the graph, its functions and their file."""
        functions = self._source.functions.values()
        nodes = len(self._source.nodes) + sum(len(proto.node_def) for proto in functions)
        files = (self.path / name for name in ("saved_model.pb", "saved_model.pbtxt"))
        return Weight(nodes, sum(file.stat().st_size for file in files if file.is_file()))

    def entries(self) -> list[str]:
        """Valid arguments of `graph`: signatures, then restored functions by dotted path; several traces of one are
        `path#0`, `path#1`, ..."""
        names = list(self.signatures)
        for path in self._restored.listed():
            traces = len(self.restored_functions[path])
            names += [path] if traces == 1 else [f"{path}#{i}" for i in range(traces)]
        return names

    def default_entry(self) -> str:
        """serving_default, else serve, else the only signature, else `__call__`. Raises PortingError, which lists the
        entries."""
        for name in ("serving_default", "serve"):
            if name in self.signatures:
                return name
        if len(self.signatures) == 1:
            return next(iter(self.signatures))
        if not self.signatures and "__call__" in self.restored_functions:
            return "__call__"
        raise PortingError(self._asked("no default among its entries"))

    def graph(self, entry: str) -> Graph:
        """The TensorFlow ops of `entry`, calls not inlined: the nodes reachable backwards from the outputs, in
        topological order.

        Raises PortingError for an unknown entry, CorruptModelError if the graph contradicts itself or the checkpoint.
        """
        if entry not in self._graphs:
            self._graphs[entry] = self._graph(entry)
        return self._graphs[entry]

    def _graph(self, entry: str) -> Graph:
        if entry in self.signatures:
            return self._signature_graph(entry)
        path, _, number = entry.removeprefix("root.").partition("#")
        traces = self._restored.traces(path)
        if traces is None:
            raise PortingError(self._asked(f"no entry '{entry}'"))
        if not traces or (number and not (number.isascii() and number.isdigit() and int(number) < len(traces))):
            raise PortingError(f"{self.path}: '{path}' has {len(traces)} traces, '{entry}' is none of them")
        if len(traces) > 1 and not number:
            _log.info("%s: '%s' has %d traces, the first is taken", self.path, path, len(traces))
        trace = traces[int(number or 0)]
        nodes, inputs, outputs = self._restored.graph_of(trace)
        where = f"{self.path}: function '{trace.function}'"
        return entry_graph(nodes, inputs, outputs, self._leaves, self._source.functions, where)

    def _asked(self, why: str) -> str:
        """An error message that lists the entries, if there are any."""
        if entries := self.entries():
            return f"{self.path}: {why}, name one of: {', '.join(dict.fromkeys(entries))}"
        return (
            f"{self.path}: {why}: there are none, for it was saved without callable functions; save the model again with "
            "signatures, by model.export(DIR) in Keras, or tf.saved_model.save(model, DIR, signatures=...)"
        )

    def captured(self, entry: str) -> frozenset[str]:
        """The constants of `graph(entry)` that TensorFlow passes to the entry's function at run time, like variables.

        This holds for TensorFlow 2 models, which are loaded and called. A session, used for all others, sees constants
        as such.
        """
        signature = self._source.meta.signature_def[entry] if entry in self.signatures else None
        ends = [] if signature is None else [*signature.inputs.values(), *signature.outputs.values()]
        if not len(self._source.objects) or any(info.WhichOneof("encoding") != "name" for info in ends):
            return frozenset()
        return frozenset(node.name for node in self.graph(entry).nodes if node.op == "Const")

    def _traces(self, path: str) -> tuple[Trace, ...]:
        return self._restored.traces(path) or ()

    def _signature(self, name: str) -> Signature:
        proto = self._source.meta.signature_def[name]
        where = f"{self.path}: signature '{name}'"
        inputs = {spec.name: spec for key in sorted(proto.inputs) for spec, _ in expand(key, proto.inputs[key], where)}
        outputs = {
            spec.name: spec for key in sorted(proto.outputs) for spec, _ in expand(key, proto.outputs[key], where)
        }
        defaults = {
            key: decode_tensor(proto.defaults[key], f"{where}: default of '{key}'") for key in sorted(proto.defaults)
        }
        return Signature(name, inputs, outputs, defaults, proto.method_name)

    def _signature_graph(self, name: str) -> Graph:
        proto = self._source.meta.signature_def[name]
        where = f"{self.path}: signature '{name}'"
        inputs = [pair for key in sorted(proto.inputs) for pair in expand(key, proto.inputs[key], where)]
        outputs = [pair for key in sorted(proto.outputs) for pair in expand(key, proto.outputs[key], where)]
        for spec, reference in inputs + outputs:
            if node_name(reference) not in self._source.nodes:
                raise CorruptModelError(f"{where}: '{spec.name}' is tensor '{reference}', which is not in the graph")
        self._check_order()
        references = {spec.name: reference for spec, reference in outputs}
        return entry_graph(self._source.nodes, inputs, references, self._leaves, self._source.functions, where)

    def _check_order(self) -> None:
        """The main graph has no cycle, needed or not: TensorFlow loads it whole. Errors: `CorruptModelError`."""
        if not self._ordered:
            nodes = self._source.nodes
            missing = {ref for node in nodes.values() for ref in node.input if node_name(ref) not in nodes}
            topological(nodes, nodes, {*missing, *(ref.lstrip("^") for ref in missing)}, f"{self.path}: graph")
            self._ordered = True

    def _function(self, name: str) -> Function:
        proto = self._source.functions[name]
        where = f"{self.path}: function '{name}'"
        inputs: list[TensorSpec] = []
        for i, arg in enumerate(proto.signature.input_arg):
            attrs: Any = proto.arg_attr[i].attr if i in proto.arg_attr else {}
            shapes: Any = attrs["_output_shapes"].list.shape if "_output_shapes" in attrs else []
            shape = decode_shape(shapes[0], where) if len(shapes) == 1 else None
            inputs.append(TensorSpec(arg.name, dtype_of(arg.type, where).name, shape))
        args = {spec.name: spec.dtype for spec in inputs}
        by_name = {node.name: node for node in proto.node_def}
        if len(by_name) != len(proto.node_def) or len(args) != len(inputs) or args.keys() & by_name.keys():
            raise CorruptModelError(f"{where}: two nodes or arguments of one name")
        checks = NodeChecks(by_name, self._source.functions, where, args)
        for node in proto.node_def:
            checks.check(node)
        topological(by_name, by_name, args, where)
        nodes = tuple(self._leaves.name(decode_node(node, where), name) for node in proto.node_def)
        outputs: list[tuple[str, str]] = []
        for arg in proto.signature.output_arg:
            if arg.name not in proto.ret or node_name(proto.ret[arg.name]) not in by_name.keys() | args.keys():
                raise CorruptModelError(f"{where}: no node makes the output '{arg.name}'")
            checks.check_result(proto.ret[arg.name], f"{where}: output '{arg.name}'")
            outputs.append((arg.name, proto.ret[arg.name]))
        controls = proto.signature.control_output
        control_outputs = tuple(proto.control_ret[output] for output in controls if output in proto.control_ret)
        for control in control_outputs:
            checks.check_result(f"^{control}", f"{where}: a control output")
        return Function(name, tuple(inputs), tuple(outputs), nodes, control_outputs)
