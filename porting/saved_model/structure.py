"""Flattens the structured inputs and outputs of a restored function like tf.nest: dicts by sorted key, composite
tensors to components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from porting.saved_model.decode import decode_shape
from porting.saved_model.dtypes import dtype_of
from torch_towers.graph.graph import Size

_SPARSE, _RAGGED = 1, 3  # TypeSpecProto.TypeSpecClass
_MAX_DEPTH = 60


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a structure. `path` holds dict keys and positions; `component` is "values", "splits0", "indices",
    ... or "" for a dense tensor."""

    path: tuple[str | int, ...]
    name: str
    component: str
    dtype: str
    shape: tuple[Size, ...] | None


def leaves(value: Any, where: str, path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    """The tensors of a StructuredValue in the order of tf.nest.flatten(..., expand_composites=True). Python values are
    not tensors."""
    kind = value.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        for i, item in enumerate(getattr(value, kind).values):
            yield from leaves(item, where, (*path, i))
    elif kind == "named_tuple_value":
        for pair in value.named_tuple_value.values:
            yield from leaves(pair.value, where, (*path, pair.key))
    elif kind == "dict_value":
        for key in sorted(value.dict_value.fields):
            yield from leaves(value.dict_value.fields[key], where, (*path, key))
    elif kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
        spec = getattr(value, kind)
        yield Leaf(path, spec.name, "", dtype_of(spec.dtype, where).name, decode_shape(spec.shape, where))
    elif kind == "type_spec_value":
        yield from _components(value.type_spec_value, where, path)


def composite_leaves(type_spec: Any, where: str) -> list[Leaf]:
    """The components of a TypeSpecProto."""
    return list(_components(type_spec, where, ()))


def _components(spec: Any, where: str, path: tuple[str | int, ...]) -> Iterator[Leaf]:
    state = _state(spec.type_state)
    shape = next(
        (
            decode_shape(item.tensor_shape_value, where)
            for item in state
            if item.WhichOneof("kind") == "tensor_shape_value"
        ),
        None,
    )
    dtypes = [
        dtype_of(item.tensor_dtype_value, where).name
        for item in state
        if item.WhichOneof("kind") == "tensor_dtype_value"
    ]
    numbers = [item.int64_value for item in state if item.WhichOneof("kind") == "int64_value"]
    if spec.type_spec_class == _RAGGED and dtypes and numbers:
        rank = numbers[0]
        yield Leaf(path, "", "values", dtypes[0], None if shape is None else (None, *shape[rank + 1 :]))
        for i in range(max(0, min(rank, _MAX_DEPTH))):
            yield Leaf(path, "", f"splits{i}", dtypes[1] if len(dtypes) > 1 else "int64", (None,))
    elif spec.type_spec_class == _SPARSE and dtypes:
        rank = None if shape is None else len(shape)
        yield Leaf(path, "", "indices", "int64", (None, rank))
        yield Leaf(path, "", "values", dtypes[0], (None,))
        yield Leaf(path, "", "dense_shape", "int64", (rank,))
    else:  # ExtensionType and others: the stated number of tensors, with dtypes from the function
        for i in range(max(0, min(spec.num_flat_components, 1000))):
            yield Leaf(path, "", f"component_{i}", "", None)


def _state(value: Any) -> list[Any]:
    kind = value.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        return list(getattr(value, kind).values)
    if kind == "named_tuple_value":
        return [pair.value for pair in value.named_tuple_value.values]
    return []
