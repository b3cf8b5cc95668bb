"""Parsing serialized data: `tf.Example`, CSV, raw bytes, tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import LISTED, Constant, Dimensions, constant
from porting.errors import PortingError

Emit = ConvertingEmitter

_EXAMPLE = ("sparse_indices", "sparse_values", "sparse_shapes", "dense_values")
_COMPUTED_KEYS = "keys that the graph computes, and dense shapes with an open size after the first"


def _keys(t: Emit, operand: Any) -> list[bytes]:
    """The names of features, which must be known at port time."""
    if not isinstance(operand, Constant):
        raise PortingError(f"{t.scope!r} computes the names of its features; only constant names can be ported")
    operand.require_at_most(LISTED)
    return np.asarray(operand.array).reshape(-1).tolist()


def _shape(t: Emit, shape: Sequence[int | None] | None) -> tuple[int, ...]:
    if shape is None or None in tuple(shape)[1:]:
        raise PortingError(f"{t.scope!r} parses a dense feature of shape {shape}; only the first size may be open")
    return tuple(-1 if size is None else size for size in shape)


def _parse(
    t: Emit,
    serialized: Any,
    names: Any,
    defaults: Sequence[Any],
    sparse: list[tuple[bytes, str]],
    dense: list[tuple[bytes, str, Any]],
    ragged: list[tuple[bytes, str, str]],
) -> list[list[Any]]:
    """The values of each of the op's outputs, as lists."""
    columns = tuple((key, dtype, _shape(t, shape)) for key, dtype, shape in dense)
    found = list(
        t.parse_examples(
            serialized, names, tuple(map(t.tensor, defaults)), sparse=tuple(sparse), dense=columns, ragged=tuple(ragged)
        )
    )
    parts: list[list[Any]] = []
    for count in (len(sparse), len(sparse), len(sparse), len(dense), len(ragged), len(ragged)):
        parts.append(found[:count])
        found = found[count:]
    return parts


@converter(
    "ParseExampleV2",
    outputs=(*_EXAMPLE, "ragged_values", "ragged_row_splits"),
    ignores=("num_sparse",),
    refuses=_COMPUTED_KEYS,
)
def parse_example_v2(
    t: Emit,
    serialized: Any,
    names: Any,
    sparse_keys: Any,
    dense_keys: Any,
    ragged_keys: Any,
    *defaults: Any,
    Tdense: list[str],
    sparse_types: list[str],
    ragged_value_types: list[str],
    ragged_split_types: list[str],
    dense_shapes: list[Any],
) -> Any:
    return tuple(
        _parse(
            t,
            serialized,
            names,
            defaults,
            list(zip(_keys(t, sparse_keys), sparse_types, strict=True)),
            list(zip(_keys(t, dense_keys), Tdense, dense_shapes, strict=True)),
            list(zip(_keys(t, ragged_keys), ragged_value_types, ragged_split_types, strict=True)),
        )
    )


@converter("ParseExample", outputs=_EXAMPLE, refuses=_COMPUTED_KEYS)
def parse_example(
    t: Emit,
    serialized: Any,
    names: Any,
    *operands: Any,
    Nsparse: int,
    Ndense: int,
    sparse_types: list[str],
    Tdense: list[str],
    dense_shapes: list[Any],
) -> Any:
    keys = [_keys(t, operand)[0] for operand in operands[: Nsparse + Ndense]]
    sparse = list(zip(keys[:Nsparse], sparse_types, strict=True))
    dense = list(zip(keys[Nsparse:], Tdense, dense_shapes, strict=True))
    return tuple(_parse(t, serialized, names, operands[Nsparse + Ndense :], sparse, dense, [])[:4])


@converter("ParseSingleExample", outputs=_EXAMPLE, ignores=("num_sparse",), refuses=_COMPUTED_KEYS)
def parse_single_example(
    t: Emit,
    serialized: Any,
    *defaults: Any,
    sparse_keys: list[bytes],
    dense_keys: list[bytes],
    sparse_types: list[str],
    Tdense: list[str],
    dense_shapes: list[Any],
) -> Any:
    sparse = list(zip(map(_bytes, sparse_keys), sparse_types, strict=True))
    dense = list(zip(map(_bytes, dense_keys), Tdense, dense_shapes, strict=True))
    return tuple(_parse(t, serialized, constant(np.empty(0, object)), defaults, sparse, dense, [])[:4])


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


@converter("DecodeCSV", outputs=("output",), ignores=("OUT_TYPE",))
def decode_csv(
    t: Emit,
    records: Any,
    *defaults: Any,
    field_delim: bytes = b",",
    use_quote_delim: bool = True,
    na_value: bytes = b"",
    select_cols: Sequence[int] = (),
) -> Any:
    return list(
        t.decode_csv(records, tuple(map(t.tensor, defaults)), delimiter=_bytes(field_delim), quotes=use_quote_delim,
                     missing=_bytes(na_value), columns=tuple(select_cols))
    )  # fmt: skip


@converter("DecodeRaw")
def decode_raw(t: Emit, x: Any, *, out_type: str, little_endian: bool = True) -> Any:
    return t.decode_raw(x, dtype=out_type, little_endian=little_endian)


@converter("DecodePaddedRaw")
def decode_padded_raw(t: Emit, x: Any, size: Dimensions, *, out_type: str, little_endian: bool = True) -> Any:
    return t.decode_padded_raw(x, *size, dtype=out_type, little_endian=little_endian)


@converter("ParseTensor")
def parse_tensor(t: Emit, serialized: Any, *, out_type: str) -> Any:
    return t.parse_tensor(serialized, dtype=out_type)


@converter("DecodeCompressed")
def decode_compressed(t: Emit, x: Any, *, compression_type: str = "") -> Any:
    return t.decompress(x, kind=compression_type) if compression_type else x
