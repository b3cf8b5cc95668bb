"""Infers dtype and shape of every value of a tower for a number of rows, with meta tensors and the `infer` functions of
ops."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call  # type: ignore[reportUnknownVariableType]

from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.graph.dtypes import dtype_name as name_of
from torch_towers.graph.graph import Node, TensorSpec, bodies
from torch_towers.graph.registry import MODULES, OPS, Op
from torch_towers.program.binding import descend, path
from torch_towers.program.program import Program
from torch_towers.program.shapes import WithoutCompiler

_STRING = torch.int8  # represents strings on the meta device: ops that move strings return this dtype


class Told(NamedTuple):
    """Inferred dtype and shape of a value without a meta tensor: strings, unknown sizes (None), or unknown."""

    dtype: str | None
    shape: tuple[int | None, ...] | None


UNKNOWN = Told(None, None)


def made_up(spec: TensorSpec, rows: int) -> Any:
    """A dummy input of `rows` rows; its other dynamic sizes are distinct numbers."""
    shape = [rows if isinstance(n, str) else n if isinstance(n, int) else 6 * rows - 5 for n in spec.shape or ()]
    if spec.dtype == "string" or spec.dtype not in TORCH_DTYPES:
        return Told(spec.dtype, tuple(shape))
    try:
        return torch.empty(shape, dtype=TORCH_DTYPES[spec.dtype], device="meta")
    except (RuntimeError, OverflowError):  # no tensor is as large as that
        return Told(spec.dtype, tuple(shape))


def sketch(program: Program, env: dict[str, Any]) -> dict[str, Any]:
    """The values of all nodes of a program by name, given those of its inputs: meta tensors, sizes, or `Told`."""
    steps = dict(program.steps)
    for node in program.graph.nodes:
        operands = [_found(operand, env) for operand in node.inputs]
        try:
            if node.op in ("parameter", "constant"):
                env[node.name] = _on_meta(steps[node.name](program, {}))
            else:
                env[node.name] = _value(program, node, operands)
        except Exception:  # not inferable
            env[node.name] = UNKNOWN
    return env


def outputs(program: Program, env: dict[str, Any]) -> dict[str, Any]:
    """The values of a program's outputs."""
    return {name: _found(ref, env) for name, ref in program.graph.outputs.items()}


def _found(operand: Any, env: dict[str, Any]) -> Any:
    """Looks up an operand: each result of a node of unknown value is unknown."""
    if isinstance(operand, tuple):
        return tuple(_found(item, env) for item in operand)  # type: ignore[reportUnknownVariableType]
    if not isinstance(operand, str):
        return operand
    name, _, index = operand.partition(":")
    value = env[name]
    if not index:
        return value
    return value[int(index)] if type(value) is tuple and int(index) < len(value) else UNKNOWN  # type: ignore[reportUnknownVariableType]


def _value(program: Program, node: Node, operands: list[Any]) -> Any:
    if node.op == "module":
        name = str(node.attrs["module"])
        spec = program.graph.modules[name]
        entry = MODULES[spec.type]
        return _told(entry, operands, spec.args) if entry.infer else _layer(descend(program, path(name)), operands)
    entry = OPS[node.op]
    if bodies(node):
        return UNKNOWN
    if entry.infer is None:
        return _run(entry, operands, node.attrs)
    found = _told(entry, operands, node.attrs)
    if isinstance(found, Told) and found.dtype == "size":
        return entry.function(*operands, **node.attrs) if entry.stage == "tensor" else UNKNOWN
    if entry.stage != "tensor" or _is_whole(found):
        return found
    try:
        return _run(entry, operands, node.attrs)
    except Exception:  # it reads values
        return found


def _is_whole(value: Any) -> bool:
    """Whether all sizes of a value are known."""
    if type(value) is tuple:
        return all(map(_is_whole, value))  # type: ignore[reportUnknownArgumentType]
    return value.shape is not None and None not in value.shape


def _told(entry: Op, operands: list[Any], attrs: Any) -> Any:
    assert entry.infer is not None
    made = [_from_spec(*spec) for spec in entry.infer(*map(_spec, operands), **attrs)]
    return made[0] if len(made) == 1 and "tuple" not in str(entry.hints.get("return")) else tuple(made)


def _from_spec(dtype: str | None, shape: Any) -> Any:
    if dtype in TORCH_DTYPES and shape is not None and all(isinstance(size, int) for size in shape):
        return torch.empty(shape, dtype=TORCH_DTYPES[dtype], device="meta")
    return Told(dtype, shape)


def _spec(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(_spec, value))  # type: ignore[reportUnknownArgumentType]
    if isinstance(value, Tensor):
        return name_of(value), tuple(value.shape)
    return tuple(value) if isinstance(value, Told) else ("size", ())


def _run(entry: Op, operands: list[Any], attrs: Any) -> Any:
    device = {"device": torch.device("meta")} if entry.takes_device else {}
    with torch.no_grad(), WithoutCompiler():
        result = entry.function(*map(_stand_in, operands), **attrs, **device)
    moved = any(isinstance(operand, Told) for operand in operands)
    if type(result) is tuple:
        return tuple(_named(item, moved) for item in result)  # type: ignore[reportUnknownVariableType]
    return _named(result, moved)


def _layer(layer: nn.Module, operands: list[Any]) -> Any:
    held = {name: _on_meta(value) for name, value in (*layer.named_parameters(), *layer.named_buffers())}
    with torch.no_grad(), WithoutCompiler():
        return functional_call(layer, held, tuple(map(_stand_in, operands)))


def _stand_in(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(_stand_in, value))  # type: ignore[reportUnknownArgumentType]
    if not isinstance(value, Told):
        return value
    if value.dtype != "string" or value.shape is None or None in value.shape:
        raise ValueError("too little is known of an operand")
    return torch.empty(value.shape, dtype=_STRING, device="meta")  # type: ignore[reportArgumentType]


def _named(result: Any, moved: bool) -> Any:
    return Told("string", tuple(result.shape)) if moved and result.dtype == _STRING else result


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return Told("string", tuple(value.shape))
