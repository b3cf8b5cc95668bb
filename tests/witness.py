"""Runs one op, or one function, in TensorFlow and through the porter, and compares.

A `Case` is one row of a conformance table: an op of `tf.raw_ops`, its operands and attributes, and how equal the results must be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion.convert import Context, convert
from porting.flat_graph.flatten import flatten
from porting.saved_model import SavedModel, protos
from porting.served import Served
from torch_towers.checkpoint.graph_json import GraphReader, Kind, graph_to_json
from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.graph.graph import Graph
from torch_towers.program.program import Program

tf: Any = pytest.importorskip(
    "tensorflow", reason="TensorFlow is the witness of these tests: install the extra [parity]"
)


@dataclass(frozen=True)
class Case:
    """One row of a conformance table.

    `operands` by the names of `tf.raw_ops.<op>`; those named in `constants` are constants of the graph, all others are fed, with
    a free first axis (`free` False: with fixed shapes). `ulp` is how many units in the last place floats may differ (0: to the
    bit), `absolute` an absolute bound for sums; either wants a `reason`. `batched`: run again with every fed operand repeated
    along its first axis.
    """

    op: str
    operands: Mapping[str, Any]
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    constants: Sequence[str] = ()
    ulp: float = 0
    absolute: float = 0.0
    reason: str = ""
    batched: bool = True
    free: bool = True
    label: str = ""

    def __str__(self) -> str:
        attrs = ",".join(f"{key}={value}" for key, value in self.attrs.items())
        return f"{self.op}({self.label or attrs})"


def case(op: str, *constants: str, ulp: float = 0, absolute: float = 0.0, reason: str = "", batched: bool = True,
         free: bool = True, label: str = "", attrs: Mapping[str, Any] | None = None, **operands: Any) -> Case:  # fmt: skip
    """`case("GatherV2", "axis", params=..., indices=..., axis=0, attrs={"batch_dims": 0})`."""
    return Case(op, operands, attrs or {}, constants, ulp, absolute, reason, batched, free, label)


def check_case(row: Case) -> None:
    """Runs one row of a conformance table."""
    fed = {name: value for name, value in row.operands.items() if name not in row.constants}
    held = {name: value for name, value in row.operands.items() if name in row.constants}

    def build(**tensors: Any) -> Any:
        operands = {**held, **_regrouped(tensors)}
        result = getattr(tf.raw_ops, row.op)(**operands, **row.attrs)
        return _flat(result)

    feeds = dict(_ungrouped(fed))
    batches = [feeds]
    if row.batched and row.free:
        batches.append(
            {name: np.concatenate([value, value]) if np.ndim(value) else value for name, value in feeds.items()}
        )
    check_function(build, batches, ulp=row.ulp, absolute=row.absolute, free=row.free)


def check_function(function: Callable[..., Any], batches: Sequence[Mapping[str, Any]], *, ulp: float = 0, absolute: float = 0.0,
                   free: bool = True) -> Program:  # fmt: skip
    """Traces `function(**tensors)` in TensorFlow, ports the trace, and compares both on every batch. Gives the port."""
    arrays = [{name: as_array(value) for name, value in batch.items()} for batch in batches]
    concrete = trace(function, arrays[0], free=free)
    program = port(concrete, list(arrays[0]))
    for batch in arrays:
        expected = [
            to_numpy(item) for item in _flat(concrete(**{name: tf.constant(value) for name, value in batch.items()}))
        ]
        found = list(run(program, batch).values())
        assert len(found) == len(expected), f"{len(found)} outputs, TensorFlow has {len(expected)}"
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal(ours, theirs, ulp=ulp, absolute=absolute, what=f"output {index}")
    return program


def trace(function: Callable[..., Any], arrays: Mapping[str, np.ndarray], *, free: bool = True) -> Any:
    """A concrete function whose arguments have a free first axis."""
    specs = {
        name: tf.TensorSpec([None, *value.shape[1:]] if free and value.ndim else value.shape,
                            tf.string if value.dtype == object else value.dtype, name)
        for name, value in arrays.items()
    }  # fmt: skip
    return tf.function(function).get_concrete_function(**specs)


def port(concrete: Any, names: Sequence[str]) -> Program:
    """The port of a concrete function without captures."""
    model = saved_model_of(concrete, names)
    context = Context(model, Served(onednn=False))
    graph, _ = convert(flatten(model.graph("traced"), model.functions), context)
    return Program(as_stored(graph, context.store), context.store)


def as_stored(graph: Graph, store: Mapping[str, Any]) -> Graph:
    """The graph as a checkpoint gives it back: a converter writes nothing that a checkpoint refuses."""
    kinds: dict[str, Kind] = {
        name: "tensor" if isinstance(value, torch.Tensor) else "strings" for name, value in store.items()
    }
    return GraphReader(kinds).graph(json.loads(json.dumps(graph_to_json(graph))), "graph")


def saved_model_of(concrete: Any, names: Sequence[str]) -> SavedModel:
    """A concrete function as a SavedModel in memory, with the signature "traced"."""
    meta = tf.compat.v1.MetaGraphDef(graph_def=concrete.graph.as_graph_def())
    signature = meta.signature_def["traced"]
    tensors = {tensor.op.name: tensor for tensor in concrete.inputs}
    for name in names:
        _describe(signature.inputs[name], tensors[name])
    for i, tensor in enumerate(concrete.outputs):
        _describe(signature.outputs[f"output_{i:03d}"], tensor)
    return SavedModel(Path("traced"), protos.parse("MetaGraphDef", meta.SerializeToString(), "traced"), [()], None)


def _describe(info: Any, tensor: Any) -> None:
    info.name, info.dtype = tensor.name, tensor.dtype.as_datatype_enum
    info.tensor_shape.CopyFrom(tensor.shape.as_proto())


def run(program: Program, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The port's answer on numpy arrays."""
    with torch.inference_mode():
        return program(**{name: to_runtime(value) for name, value in batch.items()})


def to_runtime(value: np.ndarray) -> Any:
    """A numpy array as the runtime wants it: a tensor, or an object array of bytes."""
    if value.dtype == object:
        return value
    if value.dtype.name not in TORCH_DTYPES or value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(value))


def as_array(value: Any) -> np.ndarray:
    """Python values as arrays; strings become object arrays of bytes, floats float32."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "SU":
        return value
    array = np.asarray(value, dtype=object)
    items = array.reshape(-1).tolist()
    if any(isinstance(item, (str, bytes)) for item in items):
        flat = np.empty(array.size, object)
        flat[:] = [item.encode() if isinstance(item, str) else item for item in items]
        return flat.reshape(array.shape)
    array = np.asarray(value)
    if array.dtype == np.float64 and not isinstance(value, np.ndarray):
        return array.astype(np.float32)
    return array


def to_numpy(tensor: Any) -> np.ndarray:
    """A TensorFlow result as numpy; strings as an object array of bytes, 0-d ones too."""
    value = tensor.numpy()
    if isinstance(value, bytes):
        array = np.empty((), object)
        array[()] = value
        return array
    return np.asarray(value)


def assert_equal(ours: Any, theirs: np.ndarray, *, ulp: float = 0, absolute: float = 0.0, what: str = "result") -> None:
    """dtype, shape and values are equal: to the bit, or within `ulp` units in the last place or `absolute`."""
    if isinstance(ours, torch.Tensor):
        ours = ours.detach().cpu()
        mine = ours.view(torch.uint16).numpy().view(theirs.dtype) if ours.dtype == torch.bfloat16 else ours.numpy()
    else:
        mine = np.asarray(ours) if not isinstance(ours, int) else np.asarray(ours, theirs.dtype)
    assert mine.shape == theirs.shape, f"{what}: shape {mine.shape}, TensorFlow has {theirs.shape}"
    assert mine.dtype == theirs.dtype, f"{what}: dtype {mine.dtype}, TensorFlow has {theirs.dtype}"
    if mine.dtype.kind not in "fcV":
        assert np.array_equal(mine, theirs), f"{what}: {mine!r}, TensorFlow has {theirs!r}"
        return
    mine, theirs = np.atleast_1d(mine), np.atleast_1d(theirs)
    if not ulp and not absolute:
        same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
        signs = np.isnan(mine) | (
            np.signbit(mine.real.astype(np.float64)) == np.signbit(theirs.real.astype(np.float64))
        )
        assert np.all(same & signs), f"{what}: {mine!r}, TensorFlow has {theirs!r}"
        return
    wide, wide_theirs = mine.astype(np.complex128 if mine.dtype.kind == "c" else np.float64), theirs.astype(
        np.complex128 if mine.dtype.kind == "c" else np.float64)  # fmt: skip
    finite = np.isfinite(wide_theirs)
    assert np.array_equal(wide[~finite], wide_theirs[~finite], equal_nan=True), (
        f"{what}: {mine!r}, TensorFlow has {theirs!r}"
    )
    spacing = np.spacing(np.maximum(np.abs(theirs[finite].real), _tiny(theirs.dtype))).astype(np.float64)
    difference = np.abs(wide[finite] - wide_theirs[finite])
    allowed = np.maximum(ulp * spacing, absolute)
    worst = float((difference - allowed).max()) if difference.size else 0.0
    assert worst <= 0, (
        f"{what}: off by {float((difference / spacing).max()):.1f} ulp: {mine!r}, TensorFlow has {theirs!r}"
    )


def _tiny(dtype: np.dtype) -> Any:
    """The smallest normal number; numpy does not know bfloat16, whose exponents are float32's."""
    return np.asarray(
        np.finfo(np.float32 if dtype.name == "bfloat16" else dtype).tiny, np.dtype(dtype).type(0).real.dtype
    )


def _flat(result: Any) -> list[Any]:
    if result is None or isinstance(result, tf.Operation):
        return []
    if isinstance(result, (list, tuple)):
        return [item for part in result for item in _flat(part)]
    return [result]


def _ungrouped(operands: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Operands that are lists of tensors (given as tuples) are fed one by one: "values__0", "values__1"."""
    flat: list[tuple[str, np.ndarray]] = []
    for name, value in operands.items():
        if isinstance(value, tuple):
            flat += [(f"{name}__{i}", as_array(item)) for i, item in enumerate(value)]
        else:
            flat.append((name, as_array(value)))
    return flat


def _regrouped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    grouped: dict[str, Any] = {}
    for name, tensor in tensors.items():
        base, _, index = name.rpartition("__")
        if base and index.isdigit():
            grouped.setdefault(base, []).append(tensor)
        else:
            grouped[name] = tensor
    return grouped
