"""Writes porting/saved_model/op_definitions.jsonl from TensorFlow's op registry: arguments, attributes, their ranges.

Run `python tools/make_op_definitions.py` with `tensorflow` and `tensorflow-text` installed. A line is an op:
`["MatMul", {"a": "T", "b": "T"}, {"product": "T"}, {"transpose_a": {"kind": "bool", "default": false}, ...}]`. An
argument is a dtype ("float32") or an attribute that holds it ("T"), "N*T" for N tensors, "[Tin]" for a list of types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow
import tensorflow_text  # type: ignore[reportUnusedImport]  # registers its ops
from tensorflow.core.framework import op_def_pb2  # type: ignore[reportMissingImports]
from tensorflow.python.client import pywrap_tf_session  # type: ignore[reportMissingImports]

TARGET = Path(__file__).parent.parent / "porting" / "saved_model" / "op_definitions.jsonl"


def main() -> None:
    ops = op_def_pb2.OpList()
    ops.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    assert tensorflow_text
    TARGET.write_text("".join(_line(op) + "\n" for op in sorted(ops.op, key=lambda op: op.name)))


def _line(op: Any) -> str:
    made = [
        op.name,
        _arguments(op.input_arg),
        _arguments(op.output_arg),
        {attr.name: _attribute(attr) for attr in op.attr},
    ]
    return json.dumps(made, separators=(",", ":"))


def _arguments(arguments: Any) -> dict[str, str]:
    return {argument.name: _argument(argument) for argument in arguments}


def _argument(argument: Any) -> str:
    if argument.type_list_attr:
        return f"[{argument.type_list_attr}]"
    kind = argument.type_attr or _dtype(argument.type)
    return f"{argument.number_attr}*{kind}" if argument.number_attr else kind


def _attribute(attr: Any) -> dict[str, Any]:
    """`default` is null if it exists but no check reads it."""
    made: dict[str, Any] = {"kind": attr.type}
    if attr.HasField("default_value"):
        made["default"] = _value(attr.default_value)
    if attr.HasField("allowed_values"):
        made["allowed"] = _value(attr.allowed_values)
    if attr.has_minimum:
        made["minimum"] = attr.minimum
    return made


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "list":
        return [_dtype(item) for item in value.list.type] or [item.decode() for item in value.list.s] or [*value.list.i]
    if kind == "type":
        return _dtype(value.type)
    if kind == "s":
        return value.s.decode("latin-1")
    return getattr(value, kind) if kind in ("i", "b") else None


def _dtype(number: int) -> str:
    return tensorflow.dtypes.as_dtype(number).base_dtype.name


if __name__ == "__main__":
    main()
