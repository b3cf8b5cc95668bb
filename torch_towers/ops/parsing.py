"""Parsing serialized data: `tf.Example`, CSV, raw bytes, serialized tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats import tf_example
from torch_towers.formats.byte_strings import strings
from torch_towers.formats.tensor_proto import DTYPES, TensorProto
from torch_towers.graph.dtypes import AnyDtype, Dtype, dtype_name, torch_dtype
from torch_towers.graph.registry import Spec, Strings, op
from torch_towers.kernels import native
from torch_towers.kernels import sparse as kernels
from torch_towers.ops.numerals import to_number
from torch_towers.ops.rows import Rows, filled, ints, ranges
from torch_towers.ops.rows import place as place_rows

Column = tuple[bytes, AnyDtype]
"""A feature of an example: its key and dtype ("float32", "int64" or "string")."""
DenseColumn = tuple[bytes, AnyDtype, tuple[int, ...]]
"""A feature of fixed shape; if the first size is -1, it is that of the longest row."""
RaggedColumn = tuple[bytes, AnyDtype, Dtype]
"""A variable-length feature, with the dtype of its row splits."""

_KINDS = {tf_example.BYTES: "string", tf_example.FLOATS: "float32", tf_example.INTEGERS: "int64"}
_TAGS = {dtype: tag for tag, dtype in _KINDS.items()}
_READERS: dict[str, Callable[[bytes], Any]] = {
    "string": tf_example.bytes_list,
    "float32": tf_example.float_list,
    "int64": tf_example.int64_list,
}
_LISTS = {"string": "bytes", "float32": "float", "int64": "int64"}  # names in TensorFlow's messages
_NAMES = {"string": "string", "float32": "float", "int64": "int64"}
_DTYPES = {"float32": np.float32, "int64": np.int64}


def _examples_spec(
    serialized: Spec, names: Spec, defaults: tuple[Spec, ...], *, sparse: Sequence[Column],
    dense: Sequence[DenseColumn], ragged: Sequence[RaggedColumn],
) -> list[Spec]:  # fmt: skip
    batch = serialized[1]
    rank = None if batch is None else len(batch) + 1

    def rows(shape: tuple[int, ...]) -> tuple[int | str | None, ...] | None:
        sizes = tuple(None if size < 0 else size for size in shape)
        return None if batch is None else (*batch, *sizes)

    specs: list[Spec] = [("int64", (None, rank))] * len(sparse)
    specs += [(dtype, (None,)) for _, dtype in sparse]
    specs += [("int64", (rank,))] * len(sparse)
    specs += [(dtype, rows(shape)) for _, dtype, shape in dense]
    specs += [(dtype, (None,)) for _, dtype, _ in ragged]
    return specs + [(splits, (None,)) for _, _, splits in ragged]


@op(stage="host", infer=_examples_spec)
def parse_examples(
    serialized: Strings,
    names: Strings,
    defaults: tuple[Rows, ...],
    *,
    sparse: tuple[Column, ...],
    dense: tuple[DenseColumn, ...],
    ragged: tuple[RaggedColumn, ...],
) -> tuple[Any, ...]:
    """The features of serialized `tf.Example`s: `[n]` or `[]` strings -> one or more tensors per feature.

    In this order: indices, values and shapes of the `sparse` features, the `dense` features, values and row splits of
    the `ragged` ones. A missing dense feature gets its default, or is an error if the default is empty; of a repeated
    one the last counts. `names` are the names of the examples in messages; it may be empty. Errors: `InputError` for
    invalid examples, a wrong dtype, or a number of values that does not match the shape.
    Source: tf.raw_ops.ParseExampleV2.
    """
    _check_defaults(defaults, dense)
    if serialized.ndim > 1:
        raise InputError(f"Expected serialized to be a scalar or vector, got shape: {list(serialized.shape)}")
    wanted: dict[bytes, tuple[str, int, str]] = {}
    for kind, columns in (("dense", dense), ("sparse", sparse), ("ragged", ragged)):
        wanted.update({column[0]: (kind, place, column[1]) for place, column in enumerate(columns)})
    single = serialized.ndim == 0
    unique = len(wanted) == len(dense) + len(sparse) + len(ragged)
    plain = (
        _plain_examples(serialized, defaults, dense, (*sparse, *(column[:2] for column in ragged))) if unique else None
    )
    fixed, found = _examples(serialized, names, defaults, wanted, dense, sparse, ragged) if plain is None else plain
    found, uneven = found[: len(sparse)], found[len(sparse) :]
    placed = [_places(lengths, len(values), single) for values, lengths in found]
    return (
        *[indices for indices, _ in placed],
        *[values for values, _ in found],
        *[shape for _, shape in placed],
        *fixed,
        *[values for values, _ in uneven],
        *[_row_splits(lengths, splits, single) for (_, lengths), (_, _, splits) in zip(uneven, ragged, strict=True)],
    )


Features = tuple[list[Any], list[tuple[Rows, Tensor]]]
"""The dense features, and (values, row lengths) of the variable-length ones."""


def _examples(
    serialized: Strings, names: Strings, defaults: tuple[Rows, ...], wanted: dict[bytes, tuple[str, int, str]],
    dense: Sequence[DenseColumn], sparse: Sequence[Column], ragged: Sequence[RaggedColumn],
) -> Features:  # fmt: skip
    """The requested features of a vector of examples, or of one."""
    single = serialized.ndim == 0
    labels: list[bytes] = names.reshape(-1).tolist()
    rows = [
        _read(item, wanted, _where(labels, index, single), single)
        for index, item in enumerate(serialized.reshape(-1).tolist())
    ]
    fixed: list[Any] = []
    for column, default in zip(dense, defaults, strict=True):
        parts = [row.get(column[0]) for row in rows]
        joined = _joined(
            [_dense(part, column, default, _where(labels, i, single)) for i, part in enumerate(parts)], column, default
        )
        fixed.append(joined.reshape(joined.shape[1:]) if single else joined)
    uneven = [_ragged([row.get(key) for row in rows], dtype) for key, dtype, *_ in (*sparse, *ragged)]
    return fixed, uneven


def _plain_examples(
    serialized: Strings, defaults: tuple[Rows, ...], dense: Sequence[DenseColumn], uneven: Sequence[Column]
) -> Features | None:
    """The features of a vector of examples by the native core; None if it is missing or cannot parse them."""
    if native.core is None or serialized.ndim != 1 or any(min(shape, default=1) < 1 for _, _, shape in dense):
        return None
    count = len(serialized)
    outs: list[Any] = []
    columns: list[Any] = []
    for (key, dtype, shape), default in zip(dense, defaults, strict=True):
        step = math.prod(shape)
        standard: Any = default.reshape(-1) if _count(default) else None
        if isinstance(standard, Tensor):
            standard = np.array(standard.numpy(), _DTYPES[dtype])
        elif standard is not None:
            standard = tuple(standard.tolist())
        outs.append(np.empty((count, *shape), _DTYPES.get(dtype, object)))
        columns.append((key, _TAGS[dtype], step, outs[-1], standard))
    columns += [(key, _TAGS[dtype], 0, None, None) for key, dtype in uneven]
    found = native.core.examples(np.ascontiguousarray(serialized), tuple(columns))
    if found is None:
        return None
    fixed = [out if out.dtype.char == "O" else torch.from_numpy(out) for out in outs]  # type: ignore[reportUnknownMemberType]
    return fixed, [
        (_values(values, dtype), _native_numbers(lengths, "int64"))
        for (_, dtype), (lengths, values) in zip(uneven, found, strict=True)
    ]


def _values(values: Any, dtype: str) -> Rows:
    """Converts a feature's values from the native core: a list of strings, or the bytes of numbers."""
    return _tensor(values, dtype) if dtype == "string" else _native_numbers(values, dtype)


def _native_numbers(data: bytearray, dtype: str) -> Tensor:
    return torch.frombuffer(data, dtype=torch_dtype(dtype)) if data else torch.empty(0, dtype=torch_dtype(dtype))


class _Where:
    """The current example, as named in TensorFlow's messages."""

    def __init__(self, name: bytes, index: int, single: bool) -> None:
        self.name, self.index, self.single = name.decode("utf-8", "replace"), index, single

    def error(self, key: bytes, text: str) -> InputError:
        shown = key.decode("utf-8", "replace")
        if self.single:
            return InputError(f"Key: {shown}.  {text}")
        return InputError(f"Name: {self.name}, Key: {shown}, Index: {self.index}.  {text}")

    def missing(self, key: bytes, dtype: str) -> InputError:
        name = "" if self.single else f"Name: {self.name}, "
        return InputError(
            f"{name}Feature: {key.decode('utf-8', 'replace')} (data type: {_NAMES[dtype]}) is required but could not be found."
        )


def _where(names: list[bytes], index: int, single: bool) -> _Where:
    return _Where(names[index] if names else b"<unknown>", index, single)


def _read(item: bytes, wanted: dict[bytes, tuple[str, int, str]], where: _Where, single: bool) -> dict[bytes, Any]:
    """The values of the requested features of one example; the last valid one of a repeated key."""
    try:
        found = tf_example.entries(item)
    except tf_example.MalformedError:
        raise InputError(f"Could not parse example input, value: {item[:200]!r}") from None
    values: dict[bytes, Any] = {}
    for key, feature in reversed(found):
        if key not in wanted:
            continue
        kind, _, dtype = wanted[key]
        if feature and feature[0] not in _KINDS:
            raise InputError("Unsupported datatype.")
        if not feature and (single or kind == "dense"):
            continue  # an empty feature counts as missing: an earlier one of the same key may be used
        if key in values:
            continue
        if not feature:
            values[key] = None
            continue
        actual = _KINDS[feature[0]]
        if actual != dtype:
            raise where.error(
                key, f"Data types don't match. Data type: {_NAMES[actual]} but expected type: {_NAMES[dtype]}"
            )
        try:
            values[key] = _READERS[dtype](feature)
        except tf_example.MalformedError:
            raise where.error(key, "Can't parse serialized Example.") from None
    return values


def _dense(part: Any, column: DenseColumn, default: Rows, where: _Where) -> Any:
    """One flat row of a dense feature, or its default. Variable-length rows are padded later."""
    key, dtype, shape = column
    is_open = bool(shape) and shape[0] < 0
    step = int(np.prod(shape[1:] if is_open else shape))
    if part is None:
        if is_open:
            return []
        if _count(default) == 0:
            raise where.missing(key, dtype)
        return default.reshape(-1).tolist()  # type: ignore[reportUnknownMemberType]
    if where.single and is_open and len(part) % step:
        raise InputError(f"Error while parsing feature with key {key.decode('utf-8', 'replace')}: number of elements should be divisible by {step}, found {len(part)} instead")  # fmt: skip
    if where.single and not is_open and len(part) != step:
        raise where.error(key, f"Can't parse serialized Example: Some {_LISTS[dtype]}_list slice was not parsed.")
    if is_open:
        if len(part) % step:
            raise where.error(key, f"Number of {_LISTS[dtype]} values is not a multiple of stride length. Saw {len(part)} values but output shape is: {_shown(shape)}")  # fmt: skip
    elif len(part) != step:
        raise where.error(key, f"Number of {_LISTS[dtype]} values != expected.  Values size: {len(part)} but output shape: {_shown(shape)}")  # fmt: skip
    return part


def _joined(parts: list[Any], column: DenseColumn, default: Rows) -> Rows:
    """The rows of a dense feature as one tensor `[n, *shape]`; variable-length rows are padded with the default."""
    _, dtype, shape = column
    if shape and shape[0] < 0:
        longest = max([0, *map(len, parts)])
        inner = shape[1:]
        flat = filled((len(parts), longest), default.reshape(()))
        for index, part in enumerate(parts):
            flat[index, : len(part)] = _tensor(part, dtype)  # type: ignore[assignment]
        return flat.reshape((len(parts), longest // max(1, int(np.prod(inner))), *inner))
    return _flat(parts, dtype).reshape((len(parts), *shape))


def _ragged(parts: list[Any], dtype: str) -> tuple[Rows, Tensor]:
    """The values of all rows, and the row lengths."""
    lists: list[Any] = [[] if part is None else part for part in parts]
    return _flat(lists, dtype), torch.tensor([len(part) for part in lists], dtype=torch.int64)


def _flat(parts: list[Any], dtype: str) -> Rows:
    if dtype == "float32":
        return torch.from_numpy(  # type: ignore[reportUnknownMemberType]
            np.concatenate([np.empty(0, np.float32), *[np.asarray(part, np.float32) for part in parts]])
        )
    return _tensor([item for part in parts for item in part], dtype)


def _tensor(items: Any, dtype: str) -> Rows:
    """A vector of a feature's values."""
    if dtype == "string":
        return strings(items)
    return torch.from_numpy(np.array(items, _DTYPES[dtype]))  # type: ignore[reportUnknownMemberType]


def _places(lengths: Tensor, values: int, single: bool) -> tuple[Tensor, Tensor]:
    """The indices and the shape of the sparse tensor of a feature: `[n, 2], [2]`, of a single example `[n, 1], [1]`."""
    if single:
        return ranges(lengths).unsqueeze(1), lengths
    found = kernels.of_lengths(lengths, values)
    if found is None:
        rows = torch.arange(lengths.shape[0]).repeat_interleave(lengths)
        found = torch.stack([rows, ranges(lengths)], 1), max([0, *ints(lengths)])
    indices, longest = found
    return indices, torch.tensor((len(lengths), longest))


def _row_splits(lengths: Tensor, dtype: str, single: bool) -> Tensor:
    if single:
        return torch.empty(0, dtype=torch_dtype(dtype))  # TensorFlow omits them for a single example
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch_dtype(dtype))


def _check_defaults(defaults: tuple[Rows, ...], dense: Sequence[DenseColumn]) -> None:
    for place, ((_, _, shape), default) in enumerate(zip(dense, defaults, strict=True)):
        if shape and shape[0] < 0:
            if _count(default) != 1:
                raise InputError(f"dense_shape[{place}] is a variable length shape: {_shown(shape)}, therefore def_value[{place}] must contain a single element (the padding element).  But its shape is: {_shown(tuple(default.shape))}")  # fmt: skip
        elif _count(default) and tuple(default.shape) != shape:
            raise InputError(f"def_value[{place}].shape() == {_shown(tuple(default.shape))} is not compatible with dense_shapes_[{place}] == {_shown(shape)}")  # fmt: skip


def _count(x: Rows) -> int:
    return x.numel() if isinstance(x, Tensor) else x.size


def _shown(shape: tuple[int, ...]) -> str:
    return "[" + ",".join("?" if size < 0 else str(size) for size in shape) + "]"


# -- text and bytes -----------------------------------------------------------------------------------------------------


def _csv_spec(records: Spec, defaults: tuple[Spec, ...], **attrs: Any) -> list[Spec]:
    return [(default[0], records[1]) for default in defaults]


@op(stage="host", infer=_csv_spec)
def decode_csv(
    records: Strings,
    defaults: tuple[Rows, ...],
    *,
    delimiter: bytes,
    quotes: bool,
    missing: bytes,
    columns: tuple[int, ...],
) -> tuple[Any, ...]:
    """The fields of CSV records (RFC 4180): `[...]` strings -> one tensor `[...]` per field, of its default's dtype.

    An empty field, or one equal to `missing`, gets its default, or is an error if the default is empty. `columns`
    selects fields. Errors: `InputError` for invalid quotes, a wrong number of fields, or invalid numbers. Source:
    tf.raw_ops.DecodeCSV.
    """
    fields: list[list[bytes]] = [[] for _ in defaults]
    for row, record in enumerate(records.reshape(-1).tolist()):
        parts = _csv_fields(record, delimiter, quotes, columns)
        if len(parts) != len(defaults):
            raise InputError(f"Expect {len(defaults)} fields but have {len(parts)} in record {row}")
        for column, part in zip(fields, parts, strict=True):
            column.append(part)
    return tuple(
        _csv_column(column, default, place, missing).reshape(records.shape)
        for place, (column, default) in enumerate(zip(fields, defaults, strict=True))
    )


def _csv_fields(record: bytes, delimiter: bytes, quotes: bool, columns: tuple[int, ...]) -> list[bytes]:
    """The fields of one record, only those in `columns` if given."""
    fields: list[bytes] = []
    position, end = 0, len(record)
    while position < end:
        if record[position] in b"\r\n":
            position += 1
            continue
        if quotes and record[position] == 0x22:
            field, position = _quoted(record, position + 1, delimiter)
        else:
            stop = record.find(delimiter, position)
            stop = end if stop < 0 else stop
            field = record[position:stop]
            if any(byte in field for byte in (b'"\r\n' if quotes else b"\r\n")):
                raise InputError("Unquoted fields cannot have quotes/CRLFs inside")
            position = stop + 1
        fields.append(field)
    if record.endswith(delimiter):
        fields.append(b"")
    return [fields[column] for column in columns if column < len(fields)] if columns else fields


def _quoted(record: bytes, position: int, delimiter: bytes) -> tuple[bytes, int]:
    field, last = bytearray(), len(record) - 1
    while position < last and (record[position] != 0x22 or record[position + 1] != delimiter[0]):
        if record[position] == 0x22:
            if record[position + 1] != 0x22:
                raise InputError("Quote inside a string has to be escaped by another quote")
            position += 1
        field.append(record[position])
        position += 1
    if position > last or record[position] != 0x22 or (position < last and record[position + 1] != delimiter[0]):
        raise InputError("Quoted field has to end with quote followed by delim or end")
    return bytes(field), position + 2


def _csv_column(column: list[bytes], default: Rows, place: int, missing: bytes) -> Rows:
    if _count(default) > 1:
        raise InputError(f"There should only be 1 default per field but field {place} has {_count(default)}")
    absent = [row for row, item in enumerate(column) if not item or item == missing]
    if absent and not _count(default):
        raise InputError(f"Field {place} is required but missing in record {absent[0]}!")
    given = [item for item in column if item and item != missing]
    if isinstance(default, Tensor):
        name = dtype_name(default)
        try:
            values: Rows = to_number(strings(given), dtype=name)
        except InputError as error:
            raise InputError(f"Field {place} is not a valid {_CSV_NAMES[name]}: {error}") from None
    else:
        values = _tensor(given, "string")
    if not absent:
        return values
    out = filled((len(column),), default.reshape(()))
    present = torch.tensor([row for row, item in enumerate(column) if item and item != missing], dtype=torch.int64)
    return place_rows(out, present, values)


_CSV_NAMES = {"int32": "int32", "int64": "int64", "float32": "float", "float64": "double"}


def _raw_spec(x: Spec, *, dtype: str, **attrs: Any) -> list[Spec]:
    return [(dtype, None if x[1] is None else (*x[1], None))]


@op(stage="host", infer=_raw_spec)
def decode_raw(x: Strings, *, dtype: Dtype, little_endian: bool) -> Tensor:
    """The bytes of each string as numbers: `[...] -> [..., n]`. Errors: `InputError` for lengths that differ or are not
    multiples of the dtype's.

    Source: tf.raw_ops.DecodeRaw.
    """
    items: list[bytes] = x.reshape(-1).tolist()
    width = _itemsize(dtype)
    length = len(items[0]) if items else 0
    for row, item in enumerate(items):
        if len(item) != length:
            raise InputError(
                f"DecodeRaw requires input strings to all be the same size, but element {row} has size {len(item)} != {length}"
            )
    if length % width:
        raise InputError(
            f"Input to DecodeRaw has length {length} that is not a multiple of {width}, the size of {dtype}"
        )
    return _numbers(b"".join(items), dtype, little_endian).reshape((*x.shape, length // width))


def _padded_spec(x: Spec, size: Spec, **attrs: Any) -> list[Spec]:
    return _raw_spec(x, **attrs)


@op(stage="host", infer=_padded_spec)
def decode_padded_raw(x: Strings, size: int, *, dtype: Dtype, little_endian: bool) -> Tensor:
    """The first `size` bytes of each string, zero-padded, as numbers: `[...] -> [..., n]`.

    Errors: `InputError` for a size that is not a multiple of the dtype's. Source: tf.raw_ops.DecodePaddedRaw.
    """
    size, width = int(size), _itemsize(dtype)
    if size <= 0 or size % width:
        raise InputError(
            f"fixed_length ({size}) must be greater than zero and a multiple of the size of out_type ({width})"
        )
    data = b"".join(item[:size].ljust(size, b"\0") for item in x.reshape(-1).tolist())
    return _numbers(data, dtype, little_endian).reshape((*x.shape, size // width))


def _itemsize(dtype: str) -> int:
    return torch.empty(0, dtype=torch_dtype(dtype)).element_size()


def _numbers(data: bytes, dtype: str, little_endian: bool) -> Tensor:
    """Bytes of the given endianness as numbers of a dtype."""
    target = torch_dtype(dtype)
    if target.is_complex:
        width = _itemsize(dtype) // 2
    else:
        width = _itemsize(dtype)
    if not little_endian and width > 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
    if target is torch.bool:
        return torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0 if data else torch.empty(0, dtype=target)
    return torch.frombuffer(bytearray(data), dtype=target) if data else torch.empty(0, dtype=target)


# -- serialized tensors -------------------------------------------------------------------------------------------------


def _tensor_spec(serialized: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, None)]


@op(stage="host", infer=_tensor_spec)
def parse_tensor(serialized: Strings, *, dtype: AnyDtype) -> Rows:
    """The tensor in a serialized `TensorProto` of `dtype`: `[]` strings -> a tensor of any shape.

    Errors: `InputError` for an invalid message, a wrong dtype, values that do not match the shape, or more than 2 GiB.
    Source: tf.raw_ops.ParseTensor.
    """
    if serialized.ndim:
        raise InputError(f"Expected `serialized` to be a scalar, got shape: {list(serialized.shape)}")
    data: bytes = serialized.item()
    try:
        message = TensorProto(data)
        found = DTYPES.get(message.dtype)
        if found is None:
            raise InputError(f"Cannot parse tensor from proto: its dtype is number {message.dtype}")
        if found == dtype == "string":
            return _tensor(message.texts(), "string").reshape(message.shape)
        if found == dtype:
            return _numbers(message.bytes(dtype), dtype, little_endian=True).reshape(message.shape)
    except tf_example.MalformedError:
        raise InputError(f"Could not parse `serialized` as a TensorProto of {dtype}: {data[:200]!r}") from None
    raise InputError(f"Type mismatch between parsed tensor ({found}) and dtype ({dtype})")
