"""SavedModels written node by node, without TensorFlow, that no exporter would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from porting.saved_model import protos
from porting.saved_model.dtypes import DTYPES

_NUMBERS = {dtype.name: number for number, dtype in DTYPES.items() if number < 100}  # 101 is a reference to 1


class Call(NamedTuple):
    """An attribute that names a function."""

    name: str


def node(name: str, op: str, *inputs: str, **attrs: Any) -> Any:
    """A NodeDef. An attribute is an int, float, bool, bytes, the name of a dtype, a numpy array, a shape as a tuple, a `Call`, or a list of one kind."""
    made = protos.message_class("NodeDef")(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        if isinstance(value, list):
            for item in value:
                _set(made.attr[key].list, item, repeated=True)
        else:
            _set(made.attr[key], value)
    return made


def const(name: str, value: Any, shape: Sequence[int] | None = None) -> Any:
    """A Const of an array; with a `shape`, of one value that stands for all of it."""
    array = np.asarray(value)
    made = node(name, "Const", dtype="string" if array.dtype.kind in "SO" else array.dtype.name, value=array)
    if shape is not None:
        sizes = made.attr["value"].tensor.tensor_shape
        del sizes.dim[:]
        for size in shape:
            sizes.dim.add(size=size)
    return made


def function(
    name: str, nodes: Sequence[Any], result: str, arguments: Sequence[str] = ("x",), dtype: str = "float32"
) -> Any:
    """A FunctionDef from `arguments` to one result `y`."""
    made = protos.message_class("FunctionDef")()
    made.signature.name = name
    for argument in arguments:
        made.signature.input_arg.add(name=argument, type=_NUMBERS[dtype])
    made.signature.output_arg.add(name="y", type=_NUMBERS[dtype])
    made.node_def.extend(nodes)
    made.ret["y"] = result
    return made


def save(
    folder: Path, nodes: Sequence[Any], outputs: Mapping[str, tuple[str, str]], functions: Sequence[Any] = (),
    inputs: Mapping[str, tuple[str, Sequence[int]]] | None = None,
) -> None:  # fmt: skip
    """Writes a SavedModel with the signature serving_default. Inputs and outputs have a dtype and a shape, or a tensor."""
    saved = protos.message_class("SavedModel")()
    meta = saved.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    signature = meta.signature_def["serving_default"]
    for name, (dtype, shape) in ({"x": ("float32", (-1,))} if inputs is None else inputs).items():
        placeholder = node(name, "Placeholder", dtype=dtype)
        meta.graph_def.node.append(placeholder)
        _tensor(signature.inputs[name], f"{name}:0", dtype, shape)
    meta.graph_def.node.extend(nodes)
    meta.graph_def.library.function.extend(functions)
    for name, (dtype, tensor) in outputs.items():
        _tensor(signature.outputs[name], tensor, dtype, None)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def _tensor(info: Any, tensor: str, dtype: str, shape: Sequence[int] | None) -> None:
    info.name, info.dtype = tensor, _NUMBERS[dtype]
    info.tensor_shape.unknown_rank = shape is None
    for size in shape or ():
        info.tensor_shape.dim.add(size=size)


def _set(attr: Any, value: Any, *, repeated: bool = False) -> None:
    if isinstance(value, Call):
        if repeated:
            attr.func.add(name=value.name)
        else:
            attr.func.name = value.name
        return
    if isinstance(value, tuple):
        shape = attr.shape.add() if repeated else attr.shape
        shape.SetInParent()
        for size in value:
            shape.dim.add(size=size)
        return
    if isinstance(value, np.ndarray):
        tensor = attr.tensor
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        if value.dtype.kind in "SO":
            tensor.dtype = _NUMBERS["string"]
            tensor.string_val.extend(value.reshape(-1).tolist())
        else:
            tensor.dtype = _NUMBERS[value.dtype.name]
            fields = {"float32": "float_val", "int32": "int_val", "int64": "int64_val", "bool": "bool_val"}
            if value.shape == () and value.dtype.name in fields:  # one value, which may stand for many
                getattr(tensor, fields[value.dtype.name]).append(value.item())
            else:
                tensor.tensor_content = value.tobytes()
        return
    kind = {bool: "b", int: "i", float: "f", bytes: "s", str: "type"}[type(value)]
    value = _NUMBERS[value] if kind == "type" else value
    if repeated:
        getattr(attr, kind).append(value)
    else:
        setattr(attr, kind, value)
