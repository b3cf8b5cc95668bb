"""Graphs as JSON and back, exact and fully checked, because checkpoints are untrusted.

In JSON a string is a reference (among operands) or text (among attributes), an array is a tuple, and values that JSON
lacks are objects with one key: `{"float": "inf"}`, `{"bytes": "a\\xff"}`, `{"graph": {...}}`.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence, Set
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from torch import Tensor, nn

from torch_towers.errors import CheckpointError
from torch_towers.formats.text_lines import escape, unescape
from torch_towers.graph.dtypes import ROW_DTYPES
from torch_towers.graph.graph import Graph, ModuleSpec, Node, Operand, TensorSpec
from torch_towers.graph.registry import MODULES, OPS, Op
from torch_towers.program.binding import is_layer
from torch_towers.program.program import layer_weights

Json = Any
Kind = Literal["tensor", "strings"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
"""Valid names of nodes, weights and vocabularies. The keys of a signature are arbitrary text."""

DTYPES = ROW_DTYPES | {"size", "variant"}
MAX_NAME, MAX_DEPTH, MAX_NODES, MAX_INT = 4096, 32, 1_000_000, 1 << 64


# -- to JSON ------------------------------------------------------------------------------------------------------------


def graph_to_json(graph: Graph) -> Json:
    """`graph` as an argument for `json.dumps`."""
    return {
        "inputs": [spec_to_json(spec) for spec in graph.inputs],
        "outputs": dict(graph.outputs),
        "modules": {
            name: {"type": spec.type, "args": {key: _value_to_json(value) for key, value in spec.args.items()}}
            for name, spec in graph.modules.items()
        },
        "nodes": [_node_to_json(node) for node in graph.nodes],
    }


def spec_to_json(spec: TensorSpec) -> Json:
    """`{"name": "text", "dtype": "string", "shape": ["batch"]}`."""
    return {"name": spec.name, "dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}


def _node_to_json(node: Node) -> Json:
    found: dict[str, Json] = {"name": node.name, "op": node.op}
    if node.inputs:
        found["inputs"] = [_value_to_json(operand) for operand in node.inputs]
    if node.attrs:
        found["attrs"] = {key: _value_to_json(value) for key, value in node.attrs.items()}
    return found


def _value_to_json(value: Any) -> Json:
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) is bytes:
        return {"bytes": escape(value).decode()}
    if isinstance(value, (tuple, list)):
        return [_value_to_json(item) for item in value]  # type: ignore[reportUnknownVariableType]
    if isinstance(value, Graph):
        return {"graph": graph_to_json(value)}
    raise TypeError(f"a graph holds {value!r} ({type(value).__name__}), which a checkpoint cannot")


# -- from JSON ----------------------------------------------------------------------------------------------------------


class GraphReader:
    """Reads the graphs of one tower. `names` are the weights, constants and vocabularies that they may use."""

    def __init__(self, names: Mapping[str, Kind]) -> None:
        self.names = names
        self._nodes = 0

    def graph(self, data: Json, where: str, depth: int = 0) -> Graph:
        """The graph in `data`; `CheckpointError`, starting with `where`, for anything invalid."""
        if depth > MAX_DEPTH:
            raise CheckpointError(f"{where}: graphs are nested more than {MAX_DEPTH} deep")
        fields = mapping(data, where, {"inputs", "outputs", "modules", "nodes"})
        inputs = tuple(
            spec_from_json(item, f"{where}.inputs") for item in sequence(fields["inputs"], f"{where}.inputs")
        )
        known: dict[str, int | None] = {spec.name: 0 for spec in inputs}  # 0: one value; n: a tuple of n; None: unknown
        if len(known) != len(inputs) or any(":" in name for name in known):
            raise CheckpointError(f"{where}.inputs: two inputs have one name, or a name has a colon")
        modules = {
            name: self._module(_name(name, where), item, f"{where}.modules[{name!r}]")
            for name, item in mapping(fields["modules"], f"{where}.modules").items()
        }
        nodes: list[Node] = []
        for item in sequence(fields["nodes"], f"{where}.nodes"):
            node = self._node(item, where, known, modules, depth)
            known[node.name] = _results(node)
            nodes.append(node)
        outputs = mapping(fields["outputs"], f"{where}.outputs")
        for name, reference in outputs.items():
            label(name, f"{where}.outputs")
            _check_reference(reference, known, f"{where}.outputs[{name!r}]")
        return Graph(inputs, tuple(nodes), dict(outputs), modules)

    def _node(
        self, data: Json, where: str, known: Mapping[str, int | None], modules: Mapping[str, ModuleSpec], depth: int
    ) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise CheckpointError(f"{where}: more than {MAX_NODES} nodes")
        fields = mapping(data, f"{where}.nodes", {"name", "op"}, {"inputs", "attrs"})
        name = _name(fields["name"], f"{where}.nodes")
        where = f"{where}: node {name!r}"
        if name in known:
            raise CheckpointError(f"{where}: the name is taken by an earlier node or input")
        op = text(fields["op"], f"{where}: op")
        inputs = tuple(
            self._value(item, where, depth) for item in sequence(fields.get("inputs", []), f"{where}: inputs")
        )
        attrs = {
            key: self._value(item, where, depth)
            for key, item in mapping(fields.get("attrs", {}), f"{where}: attrs").items()
        }
        for reference in _references(inputs):
            _check_reference(reference, known, where)
        if op in ("parameter", "constant"):
            self._check_tensor(op, inputs, attrs, where)
        elif op == "module":
            if set(attrs) != {"module"} or not isinstance(attrs["module"], str) or attrs["module"] not in modules:
                raise CheckpointError(f"{where}: calls a module that is not among the graph's modules")
            check_call(MODULES[modules[attrs["module"]].type], inputs, where)
        elif op in OPS:
            check_arguments(OPS[op], inputs, attrs, where)
        else:
            raise CheckpointError(f"{where}: torch_towers.ops has no op {op!r}; a newer torch_towers may have it")
        return Node(name, op, inputs, attrs)

    def _check_tensor(self, op: str, inputs: tuple[Operand, ...], attrs: Mapping[str, Any], where: str) -> None:
        tensor = attrs.get("tensor")
        if inputs or set(attrs) != {"tensor"} or not isinstance(tensor, str):
            raise CheckpointError(f"{where}: a {op} has one attribute, `tensor`, and no operands")
        if tensor not in self.names:
            raise CheckpointError(f"{where}: the checkpoint has no tensor or vocabulary {tensor!r}")
        if op == "parameter" and self.names[tensor] != "tensor":
            raise CheckpointError(f"{where}: {tensor!r} is a vocabulary, not a weight")

    def _module(self, name: str, data: Json, where: str) -> ModuleSpec:
        fields = mapping(data, where, {"type", "args"})
        kind = text(fields["type"], f"{where}.type")
        if kind not in MODULES:
            raise CheckpointError(
                f"{where}: torch_towers.layers has no module {kind!r}; a newer torch_towers may have it"
            )
        entry = MODULES[kind]
        args = {key: self._value(item, where, 0) for key, item in mapping(fields["args"], f"{where}.args").items()}
        try:
            entry.signature.bind(**args)
        except TypeError as error:
            raise CheckpointError(f"{where}: {kind} {error}") from error
        for key, value in args.items():
            if key == "device" or key.startswith(
                "_"
            ):  # layers are built on the meta device, never from inner arguments
                raise CheckpointError(f"{where}: a checkpoint does not set `{key}` of {kind}")
            hint = entry.hints.get(key, Any)
            if fits(value, hint):
                continue
            if not isinstance(value, str) or not _takes_value(hint):
                raise CheckpointError(f"{where}: `{key}` of {kind} cannot be {value!r}")
            if value not in self.names:
                raise CheckpointError(f"{where}: the checkpoint has no tensor or vocabulary {value!r}")
        spec = ModuleSpec(kind, args)
        if is_layer(entry):
            self._check_layer(name, spec, where)
        return spec

    def _check_layer(self, name: str, spec: ModuleSpec, where: str) -> None:
        try:
            weights = layer_weights(spec)
        except Exception as error:
            raise CheckpointError(f"{where}: {spec.type} cannot be built from {_short(spec.args)}: {error}") from error
        for key in sorted(weights):
            if self.names.get(f"{name}.{key}") != "tensor":
                raise CheckpointError(f"{where}: the checkpoint has no tensor '{name}.{key}', which {spec.type} needs")

    def _value(self, data: Json, where: str, depth: int, nesting: int = 0) -> Any:
        if data is None or isinstance(data, (str, bool, float)):
            return data
        if isinstance(data, int):
            if abs(data) >= MAX_INT:
                raise CheckpointError(f"{where}: an integer needs more than 64 bits")
            return data
        if nesting > MAX_DEPTH:
            raise CheckpointError(f"{where}: values are nested more than {MAX_DEPTH} deep")
        if isinstance(data, (list, tuple)):
            return tuple(self._value(item, where, depth, nesting + 1) for item in typing.cast(list[Json], data))
        fields = mapping(data, where)
        if len(fields) == 1:
            ((kind, content),) = fields.items()
            if kind == "float" and content in ("nan", "inf", "-inf"):
                return float(content)
            if kind == "bytes" and isinstance(content, str):
                return unescape(content.encode())
            if kind == "graph":
                return self.graph(content, f"{where}, its graph", depth + 1)
        raise CheckpointError(f"{where}: {_short(data)} is not a value of a graph")


def spec_from_json(data: Json, where: str, dtypes: Set[str] = DTYPES) -> TensorSpec:
    """The spec in `data`: one of `dtypes`, and a shape of nonnegative sizes, names, or unknown sizes."""
    fields = mapping(data, where, {"name", "dtype", "shape"})
    name = label(fields["name"], where)
    if not isinstance(fields["dtype"], str) or fields["dtype"] not in dtypes:
        raise CheckpointError(f"{where}: {name!r} has the dtype {_short(fields['dtype'])}, which does not exist here")
    if fields["shape"] is None:
        return TensorSpec(name, fields["dtype"], None)
    shape = sequence(fields["shape"], f"{where}: shape of {name!r}")
    for size in shape:
        good = (
            size is None or (isinstance(size, str) and len(size) < 256) or (type(size) is int and 0 <= size < 1 << 63)
        )
        if not good:
            raise CheckpointError(f"{where}: {name!r} has the size {_short(size)}")
    return TensorSpec(name, fields["dtype"], tuple(shape))


_NO_KEYS: frozenset[str] = frozenset()


def mapping(data: Json, where: str, required: Set[str] | None = None, optional: Set[str] = _NO_KEYS) -> dict[str, Json]:
    """`data` as an object, with exactly the `required` and some `optional` keys if given."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{where} must be an object, not {_short(data)}")
    found = typing.cast(dict[str, Json], data)
    if required is not None:
        if missing := sorted(required - found.keys()):
            raise CheckpointError(f"{where} lacks {missing[0]!r}")
        if extra := sorted(found.keys() - required - optional):
            raise CheckpointError(f"{where} has the unknown key {extra[0]!r}; a newer torch_towers may know it")
    return found


def sequence(data: Json, where: str) -> list[Json]:
    """`data` as an array."""
    if not isinstance(data, list):
        raise CheckpointError(f"{where} must be an array, not {_short(data)}")
    return typing.cast(list[Json], data)


def text(data: Json, where: str) -> str:
    """`data` as a string."""
    if not isinstance(data, str):
        raise CheckpointError(f"{where} must be a string, not {_short(data)}")
    return data


def label(data: Json, where: str) -> str:
    """`data` as a key of a signature: any text of reasonable length."""
    if not isinstance(data, str) or not 0 < len(data) <= MAX_NAME:
        raise CheckpointError(f"{where}: {_short(data)} cannot be the name of an input or output")
    return data


def _name(data: Json, where: str) -> str:
    if not isinstance(data, str) or len(data) > MAX_NAME or not NAME.fullmatch(data):
        raise CheckpointError(
            f"{where}: {_short(data)} is not a name (dotted parts of letters, digits and underscores)"
        )
    return data


def _short(data: Json) -> str:
    shown = repr(data)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# -- references ---------------------------------------------------------------------------------------------------------


def _references(operands: tuple[Operand, ...]) -> list[str]:
    found: list[str] = []
    for operand in operands:
        if isinstance(operand, str):
            found.append(operand)
        elif isinstance(operand, tuple):
            found += _references(typing.cast(tuple[Operand, ...], operand))
    return found


def _check_reference(reference: Json, known: Mapping[str, int | None], where: str) -> None:
    if not isinstance(reference, str):
        raise CheckpointError(f"{where}: {_short(reference)} is not a reference")
    name, colon, index = reference.partition(":")
    if name not in known:
        raise CheckpointError(f"{where}: {_short(reference)} is neither an input nor an earlier node")
    count = known[name]
    if colon and (not re.fullmatch(r"0|[1-9][0-9]{0,5}", index) or (count is not None and int(index) >= count)):
        raise CheckpointError(f"{where}: {_short(reference)} asks for a result that {name!r} does not have")


def _results(node: Node) -> int | None:
    """The number of results by the op's signature: 0 for one value that is not a tuple, None if unknown."""
    hint = OPS[node.op].hints.get("return", Any) if node.op in OPS else Any
    if typing.get_origin(hint) is tuple:
        args = typing.get_args(hint)
        return None if Ellipsis in args else len(args)
    return 0 if hint in (Tensor, int) else None


# -- signatures ---------------------------------------------------------------------------------------------------------

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_arguments(entry: Op, inputs: tuple[Operand, ...], attrs: Mapping[str, Any], where: str) -> None:
    """Binds operands and attributes to the op's signature, like a call, and checks each against its annotation."""
    parameters = list(entry.signature.parameters.values())
    _check_operands(entry.name, parameters, entry.hints, inputs, where)
    named = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "device"}
    if extra := sorted(attrs.keys() - named.keys()):
        raise CheckpointError(f"{where}: {entry.name} has no attribute `{extra[0]}`")
    for name, parameter in named.items():
        if name not in attrs and parameter.default is parameter.empty:
            raise CheckpointError(f"{where}: {entry.name} lacks its attribute `{name}`")
        if name in attrs and not fits(attrs[name], entry.hints.get(name, Any)):
            raise CheckpointError(f"{where}: the attribute `{name}` of {entry.name} cannot be {_short(attrs[name])}")


def check_call(entry: Op, inputs: tuple[Operand, ...], where: str) -> None:
    """Checks the operands of a module call."""
    parameters, hints = _call_of(entry.function)
    _check_operands(entry.name, parameters, hints, inputs, where)


@functools.cache
def _call_of(kind: Any) -> tuple[list[inspect.Parameter], dict[str, Any]]:
    call = kind.forward if issubclass(kind, nn.Module) else kind.__call__
    parameters = list(inspect.signature(call).parameters.values())[1:]
    try:
        return parameters, typing.get_type_hints(call)
    except NameError:  # torch's own modules use names that exist only in type stubs
        return parameters, {}


def _check_operands(
    op: str, parameters: list[inspect.Parameter], hints: Mapping[str, Any], inputs: tuple[Operand, ...], where: str
) -> None:
    taken = [p for p in parameters if p.kind in _POSITIONAL]
    variadic = next((p for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    least = sum(p.default is p.empty for p in taken)
    if len(inputs) < least or (len(inputs) > len(taken) and variadic is None):
        raise CheckpointError(f"{where}: {op} takes {len(taken)} operands, not {len(inputs)}")
    for position, operand in enumerate(inputs):
        parameter = taken[position] if position < len(taken) else variadic
        assert parameter is not None
        if not _operand_fits(operand, hints.get(parameter.name, Any)):
            raise CheckpointError(f"{where}: the operand `{parameter.name}` of {op} cannot be {_short(operand)}")


def _operand_fits(operand: Operand, hint: Any) -> bool:
    """A reference fits any run-time value; literals must match the annotation."""
    if isinstance(operand, str):
        return hint not in (str, bytes)
    if isinstance(operand, tuple):
        items = typing.cast(tuple[Operand, ...], operand)
        return any(all(_operand_fits(item, of) for item in items) for of in _items(hint))
    return fits(operand, hint)


def _items(hint: Any) -> list[Any]:
    """The annotations of the elements of a tuple given for `hint`; empty if a tuple does not fit."""
    if hint is Any or hint in (tuple, list):
        return [Any]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [of for arg in args for of in _items(arg)]
    if origin in (tuple, list, Sequence):
        return [args[0]] if len(args) == 1 or args[1] is Ellipsis else [Any]
    return []


def _takes_value(hint: Any) -> bool:
    """True if `hint` is a tensor or array of bytes, which a checkpoint gives by name."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_takes_value(arg) for arg in args)
    return hint is Tensor or hint is np.ndarray or typing.get_origin(hint) is np.ndarray


_PLAIN: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int), str: (str,), bytes: (bytes,)}


def fits(value: Any, hint: Any) -> bool:
    """Whether a constant matches the annotation of a registered op. `TypeError` for an unsupported annotation."""
    if hint is Any or hint is object or hint is inspect.Parameter.empty or isinstance(hint, TypeVar):
        return True
    if hint in _PLAIN:
        return type(value) in _PLAIN[hint]
    if hint is None or hint is type(None):
        return value is None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:  # with what tests a value of that type
        return fits(value, args[0]) and all(holds(value) for holds in args[1:])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return isinstance(value, tuple) and _tuple_fits(typing.cast(tuple[Any, ...], value), args)
    if origin is not None and issubclass(origin, typing.get_origin(typing.Callable[..., Any]) or object):
        return isinstance(value, Graph)  # the body of a loop or branch
    if _takes_value(hint):
        return False
    raise TypeError(f"the annotation {hint!r} of a registered op is not supported")


def _tuple_fits(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if not args:
        return True
    if len(args) == 1 or args[1] is Ellipsis:
        return all(fits(item, args[0]) for item in value)
    return len(value) == len(args) and all(fits(item, arg) for item, arg in zip(value, args, strict=True))
