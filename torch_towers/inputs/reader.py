"""Reads users' inputs (lists, numpy, torch, pandas, Arrow, rows of JSON) into the form that a tower takes.

A number becomes an element of a CPU tensor of the signature's dtype, a string an element of a numpy object array of
`bytes`. Invalid values raise a one-sentence error that names the feature and the row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError, suggestion
from torch_towers.formats.byte_strings import string, strings
from torch_towers.graph.dtypes import DTYPE_NAMES, TORCH_DTYPES
from torch_towers.graph.graph import BATCH, TensorSpec, is_batched, rows_of
from torch_towers.graph.registry import Strings
from torch_towers.inputs import vertex
from torch_towers.kernels import native

Columns = dict[str, "Tensor | Strings"]

_NUMPY_DTYPES = {name: np.dtype(name) for name in TORCH_DTYPES if name != "bfloat16"}
_LIMITS = {name: np.iinfo(name) for name, dtype in _NUMPY_DTYPES.items() if dtype.kind in "iu"}


class InputReader:
    """Reads inputs by a signature: `reader(inputs) -> (columns by name, number of rows)`.

    `inputs` are columns by name, rows (a list of mappings), or, for a signature with one input, the bare column. `(n,)`
    is accepted for `(n, 1)` and vice versa. The number of rows is None if no input has rows. Errors: `InputError`.
    """

    def __init__(self, specs: Sequence[TensorSpec], defaults: Mapping[str, Tensor | Strings] | None = None) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.defaults = dict(defaults or {})
        self.splittable = all(is_batched(spec) for spec in specs)
        self._names = frozenset(self.specs)
        self._plan = [(spec.name, spec, _flat_form(spec), rows_of(spec)) for spec in specs]

    def __call__(self, inputs: Any) -> tuple[Columns, int | None]:
        as_named = type(inputs) is dict and cast("dict[Any, Any]", inputs).keys() == self._names
        columns = cast("Mapping[str, Any]", inputs) if as_named else self._columns(inputs)
        read: Columns = {}
        first: dict[str, tuple[str, int]] = {}  # by batch dimension: the first input that has it, and its size
        for name, spec, flat, own in self._plan:
            if name not in columns:
                read[name] = self.defaults[name]
                continue
            column = columns[name]
            value = None if flat is None else _read_flat(column, flat)
            if value is None:
                value = read_column(column, spec)
            read[name] = value
            if own:
                count = value.shape[0]
                other, rows = first.setdefault(own, (name, count))
                if count != rows:
                    raise InputError(
                        f"feature {name!r} has {count} rows, but {other!r} has {rows}: all need the same number"
                    )
        return read, first[BATCH][1] if BATCH in first else None

    def _columns(self, inputs: Any) -> Mapping[str, Any]:
        if vertex.are_documents(inputs, self.specs):
            inputs = vertex.columns_of(inputs, self.specs)
        if isinstance(inputs, Mapping):
            columns = cast(Mapping[str, Any], inputs)
        elif _is_table(inputs):
            columns = _table_columns(inputs)
        elif isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], Mapping):
            return self._transposed(cast(Sequence[Any], inputs))
        elif len(self.specs) == 1:
            return dict.fromkeys(self.specs, cast(Any, inputs))
        elif isinstance(inputs, (list, tuple)) and not inputs:
            return dict.fromkeys(self.specs, _NO_ROWS)
        else:
            raise InputError(
                f"the tower takes {_listed(self.specs)}: give a mapping of columns or a list of rows, not {_kind(inputs)}"
            )
        if columns.keys() != self.specs.keys():
            self._check_names(columns.keys(), "")
        return columns

    def _check_names(self, given: Iterable[Any], where: str) -> None:
        known = set(given)
        for name in known - self.specs.keys():
            raise InputError(
                f"{where}unknown feature {name!r}{self._hint(str(name), known)}; the tower takes {_listed(self.specs)}"
            )
        for name in self.specs:
            if name not in known and name not in self.defaults:
                raise InputError(f"{where}feature {name!r} is missing; the tower takes {_listed(self.specs)}")

    def _hint(self, name: str, given: set[Any]) -> str:
        return suggestion(name, [known for known in self.specs if known not in given])

    def _transposed(self, rows: Sequence[Any]) -> dict[str, list[Any]]:
        for name, spec in self.specs.items():
            if not rows_of(spec):
                raise InputError(
                    f"feature {name!r} has no rows (its shape is {_shape(spec)}): give columns, not a list of rows"
                )
        names: set[Any] = set(rows[0])
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputError(f"row {index} is {_kind(row)}, not a mapping from features to values")
            given = set(cast(Mapping[Any, Any], row))
            if index == 0 or given != names:
                self._check_names(given, f"row {index}: ")
                if given != names:
                    odd = next(iter(given ^ names))
                    raise InputError(f"feature {odd!r} is present only in some rows: row {index} differs from row 0")
        return {name: [row[name] for row in rows] for name in self.specs if name in names}


_NO_ROWS: list[Any] = []


_FlatForm = tuple[np.dtype[Any], tuple[int, ...]]


def _flat_form(spec: TensorSpec) -> _FlatForm | None:
    """The dtype and shape of a feature that is one scalar per row, so that a flat list may hold it."""
    dtype = np.dtype(object) if spec.dtype == "string" else _NUMPY_DTYPES.get(spec.dtype)
    shape = () if spec.shape is None else spec.shape
    if dtype is None or dtype.char not in "Ofdilq" or not rows_of(spec) or shape[1:] not in ((), (1,)):
        return None
    return dtype, (-1, *cast("tuple[int, ...]", shape[1:]))


def _read_flat(column: Any, form: _FlatForm) -> Tensor | Strings | None:
    """A list of only `str` and `bytes`, `float` or `int`, read in one native pass; None for other lists."""
    core = native.core
    if core is None or type(column) is not list:
        return None
    dtype, shape = form
    array: np.ndarray[Any, Any] = np.empty(len(cast("list[Any]", column)), dtype)
    if not (core.encode if dtype.char == "O" else core.numbers)(column, array):
        return None
    value = array if dtype.char == "O" else cast(Tensor, torch.from_numpy(array))  # type: ignore[reportUnknownMemberType]
    return value.reshape(shape) if len(shape) > 1 else value


def read_column(column: Any, spec: TensorSpec) -> Tensor | Strings:
    """One feature as the signature requires: dtype, rank and inner sizes."""
    column = _plain(column, spec)
    value = _read_strings(column, spec) if spec.dtype == "string" else _read_numbers(column, spec)
    return value if spec.shape is None else _fitted(value, spec, spec.shape)


def _fitted(value: Any, spec: TensorSpec, shape: tuple[Any, ...]) -> Any:
    if value.ndim != len(shape):
        if len(shape) == 2 and shape[1] == 1 and value.ndim == 1:
            return value.reshape(-1, 1)
        if len(shape) == 1 and value.ndim == 2 and value.shape[1] == 1:
            return value.reshape(-1)
        if (
            value.ndim and value.shape[0] == 0 and value.ndim < len(shape)
        ):  # an empty list does not show its inner sizes
            return value.reshape(0, *(size if isinstance(size, int) else 0 for size in shape[1:]))
        raise InputError(
            f"feature {spec.name!r} has the shape {list(value.shape)}; the tower takes {_shape(spec)}{_wrap(value, shape, spec)}"
        )
    for found, size in zip(value.shape, shape, strict=True):
        if isinstance(size, int) and found != size:
            if value.shape[0] == 0 and value.ndim > 1 and isinstance(shape[0], str):
                return value.reshape(0, *(size if isinstance(size, int) else 0 for size in shape[1:]))
            raise InputError(f"feature {spec.name!r} has the shape {list(value.shape)}; the tower takes {_shape(spec)}")
    return value


def _wrap(value: Any, shape: tuple[Any, ...], spec: TensorSpec) -> str:
    return ": wrap the row in a list" if value.ndim == len(shape) - 1 and rows_of(spec) else ""


# -- containers ---------------------------------------------------------------------------------------------------------


def _plain(column: Any, spec: TensorSpec) -> Any:
    """pandas and Arrow columns as lists or numpy arrays, without importing these packages."""
    kind = cast("type[Any]", type(column))
    if kind in (list, tuple, np.ndarray) or isinstance(column, Tensor):
        return column
    if isinstance(column, (str, bytes)):
        if spec.shape:
            raise InputError(f"feature {spec.name!r} is a single {kind.__name__}: wrap it in a list")
        return column
    module = kind.__module__.partition(".")[0]
    if module == "pyarrow":
        if getattr(column, "null_count", 0):
            row = next(i for i, value in enumerate(column.to_pylist()) if value is None)
            raise InputError(f"feature {spec.name!r}, row {row}: the value is None")
        if spec.dtype == "string" and str(column.type) in _TEXTS:  # reads the buffers as bytes, without creating `str`
            return column.cast(_TEXTS[str(column.type)]).to_numpy(zero_copy_only=False)
        nested = spec.dtype == "string" or "list" in str(column.type)
        return column.to_pylist() if nested else np.asarray(column)
    if hasattr(column, "to_numpy"):  # pandas and polars
        if hasattr(column, "isna") and not isinstance(column.dtype, np.dtype) and column.isna().any():
            raise InputError(f"feature {spec.name!r}, row {int(np.argmax(column.isna()))}: the value is None")
        if spec.dtype == "string" and getattr(getattr(column, "dtype", None), "storage", "") == "pyarrow":
            return _plain(column.array.__arrow_array__(), spec)
        return np.asarray(column.to_numpy())
    if hasattr(column, "__array__"):  # jax and others
        return np.asarray(column)
    if isinstance(column, (bool, int, float, complex, np.generic)):
        return cast(Any, column)
    if isinstance(column, Iterable) and not isinstance(column, Mapping):
        return list(cast(Iterable[Any], column))
    raise InputError(f"feature {spec.name!r} is {_kind(column)}: give a list, an array or a tensor")


_TEXTS = {"string": "binary", "large_string": "large_binary"}
"""Arrow's string types, and the binary types with the same buffers."""


def _is_table(inputs: Any) -> bool:
    return (hasattr(inputs, "columns") and hasattr(inputs, "iloc")) or hasattr(inputs, "column_names") or (
        hasattr(inputs, "schema") and hasattr(inputs, "column")
    )  # fmt: skip


def _table_columns(table: Any) -> dict[str, Any]:
    if hasattr(table, "iloc"):
        return {str(name): table[name] for name in table.columns}
    names = table.column_names if hasattr(table, "column_names") else table.schema.names
    return {name: table.column(index) for index, name in enumerate(names)}


# -- strings ------------------------------------------------------------------------------------------------------------


def _read_strings(column: Any, spec: TensorSpec) -> Strings:
    if isinstance(column, (list, tuple)):
        return _strings_of_list(list(cast(Sequence[Any], column)), [len(cast(Sequence[Any], column))], spec)
    if isinstance(column, np.ndarray):
        array = cast("np.ndarray[Any, Any]", column)
        if array.dtype.kind not in "OSUT" and array.size:
            raise InputError(f"feature {spec.name!r} holds {array.dtype} values; the tower takes strings")
        return _strings_of_list(array.reshape(-1).tolist(), list(array.shape), spec)
    if isinstance(column, Tensor):
        raise InputError(f"feature {spec.name!r} is a tensor of {column.dtype}; the tower takes strings")
    return string(_encode(column, spec, 0))


def _strings_of_list(flat: list[Any], shape: list[int], spec: TensorSpec) -> Strings:
    """Elements in the order of `shape`: strings, or (nested) lists of them."""
    while flat and isinstance(flat[0], (list, tuple, np.ndarray)):
        width, per_row = len(cast(Sequence[Any], flat[0])), len(flat) // shape[0]
        if {*map(type, flat)} <= {list, tuple} and {*map(len, flat)} == {
            width
        }:  # the common case, without Python code per element
            flat, shape = list(itertools.chain.from_iterable(flat)), [*shape, width]
            continue
        inner: list[Any] = []
        for index, item in enumerate(flat):
            values = item.tolist() if isinstance(item, np.ndarray) else item
            if not isinstance(values, (list, tuple)):
                raise InputError(
                    f"feature {spec.name!r}, row {index // per_row}: expected a list, as in row 0, found {_kind(item)}"
                )
            if len(cast(Sequence[Any], values)) != width:
                raise _ragged(spec, index // per_row, [len(cast(Sequence[Any], values))], [width])
            inner += values
        flat, shape = inner, [*shape, width]
    return _encoded(flat, spec, max(1, len(flat) // shape[0]) if shape and shape[0] else 1).reshape(shape)


def _encoded(column: Sequence[Any], spec: TensorSpec, per_row: int) -> Strings:
    """A flat sequence as bytes. In the common case all are `str`, or all `bytes`, which takes one pass without Python
    code."""
    array = np.empty(len(column), dtype=object)
    if native.core is not None and native.core.encode(column, array):
        return array
    kinds = set(map(type, column))
    if kinds == {bytes}:
        return strings(column)
    if kinds == {str}:
        try:
            return strings(list(map(str.encode, column)))
        except UnicodeEncodeError:
            pass
    return strings([_encode(value, spec, index // per_row) for index, value in enumerate(column)])


def _encode(value: Any, spec: TensorSpec, row: int) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"feature {spec.name!r}, row {row}: the text holds a lone surrogate (U+{ord(value[error.start]):04X}), "
                "which is not UTF-8: repair it, or give bytes"
            ) from error
    if isinstance(value, bytes):
        return bytes(value)
    if value is None or value != value or type(value).__name__ == "NAType":
        raise InputError(f"feature {spec.name!r}, row {row}: the value is None; the tower takes strings")
    raise InputError(f"feature {spec.name!r}, row {row}: expected a string, found {_kind(value)}")


# -- numbers ------------------------------------------------------------------------------------------------------------


def _read_numbers(column: Any, spec: TensorSpec) -> Tensor:
    if isinstance(column, Tensor):
        return _cast_tensor(column.detach().cpu(), spec)
    if isinstance(column, (list, tuple)):
        column = _array_of_list(cast(Sequence[Any], column), spec)
    elif not isinstance(column, np.ndarray):
        column = np.asarray(column)
    array = cast("np.ndarray[Any, Any]", column)
    if array.dtype.kind not in "biufc":
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        else:
            array = _array_of_objects(array, spec)
    return _from_numpy(array, spec)


def _array_of_list(column: Sequence[Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    if not column:
        return np.empty(0, dtype=_NUMPY_DTYPES.get(spec.dtype, np.dtype(np.float32)))
    if isinstance(column[0], Tensor):
        rows = [np.asarray(_numpy(row)) if isinstance(row, Tensor) else np.asarray(row) for row in column]
        _same_shapes(rows, spec)
        return np.stack(rows)
    try:
        array = np.asarray(column)
    except (ValueError, TypeError, OverflowError):  # ragged, or of mixed types
        array = None
    if array is not None and array.dtype.kind not in "biufcO":  # numpy turns numbers next to text into text
        array = np.array(column, dtype=object)
    if array is None:
        rows = [np.asarray(_row_array(row, spec, index)) for index, row in enumerate(column)]
        _same_shapes(rows, spec)
        return np.stack(rows)
    if array.dtype.kind == "f" and spec.dtype in _LIMITS:
        return _integers_in(column, array, spec)
    return array


def _numpy(value: Tensor) -> np.ndarray[Any, Any]:
    value = value.detach().cpu()
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()


def _row_array(row: Any, spec: TensorSpec, index: int) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(row)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"feature {spec.name!r}, row {index}: its values do not form one array (they are ragged)"
        ) from error
    if row is None or array.dtype.kind not in "biufc":
        _refuse_elements([row] if array.ndim == 0 else array.reshape(-1).tolist(), spec, index)
    return array


def _integers_in(column: Sequence[Any], array: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Restores integers that numpy turned into floats, next to a float or because they are large: all digits must
    survive."""
    values = np.empty(array.shape, dtype=object)
    values[...] = np.array(column, dtype=object)
    flat = values.reshape(-1)
    if all(isinstance(value, (int, np.integer)) for value in flat):
        return _checked_integers(values, spec)
    return array


def _array_of_objects(array: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """An array that numpy could not make numeric: nested rows, large integers, or no numbers at all."""
    if array.dtype.kind == "O":
        flat: list[Any] = array.reshape(-1).tolist()
        if array.ndim == 1 and flat and all(isinstance(value, (list, tuple, np.ndarray)) for value in flat):
            return _array_of_list([v.tolist() if isinstance(v, np.ndarray) else v for v in flat], spec)  # type: ignore[reportUnknownVariableType]
        if flat and all(isinstance(value, (int, np.integer)) for value in flat):
            return _checked_integers(array, spec)
        if flat and all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in flat):
            return _floats(array, spec)
    width = array[0].size if array.ndim > 1 and array.shape[0] else 1
    for index, value in enumerate(array.reshape(-1).tolist()):
        _refuse_elements([value], spec, index // width)
    return array.astype(np.float64)


def _refuse_elements(values: Iterable[Any], spec: TensorSpec, row: int) -> None:
    for value in values:
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            raise InputError(f"feature {spec.name!r}, row {row}: the value is None; the tower takes {spec.dtype}")
        if not isinstance(value, (bool, int, float, complex, np.number, np.bool_)):
            raise InputError(f"feature {spec.name!r}, row {row}: expected {spec.dtype}, found {_kind(value)}")


def _checked_integers(values: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    if spec.dtype in _LIMITS:
        limits = _LIMITS[spec.dtype]
        for index, value in enumerate(values.reshape(values.shape[0] if values.ndim else 1, -1)):
            for item in value:
                if not limits.min <= item <= limits.max:
                    raise InputError(f"feature {spec.name!r}, row {index}: {_integer(item)} does not fit {spec.dtype}")
        return values.astype(_NUMPY_DTYPES[spec.dtype])
    return _floats(values, spec)


def _floats(values: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Numeric objects as floats."""
    try:
        return values.astype(np.float64)
    except OverflowError:
        rows = values.reshape(values.shape[0] if values.ndim else 1, -1)
        large = 2**1024 - 2**970  # the smallest integer that overflows float64
        row, item = next((at[0], v) for at, v in np.ndenumerate(rows) if isinstance(v, int) and abs(v) >= large)
        raise InputError(f"feature {spec.name!r}, row {row}: {_integer(item)} does not fit {spec.dtype}") from None


def _integer(value: Any) -> str:
    """Formats an integer; Python refuses to print more than a few thousand digits."""
    return str(value) if abs(int(value)) < 1 << 128 else f"an integer of {value.bit_length()} bits"


def _from_numpy(array: np.ndarray[Any, Any], spec: TensorSpec) -> Tensor:
    wanted = _NUMPY_DTYPES.get(spec.dtype)
    if array.dtype != wanted:
        _check_values(array, spec)
        with np.errstate(over="ignore"):
            array = array.astype(wanted or np.float32)
    if not array.flags.writeable or not array.dtype.isnative or any(step < 0 for step in array.strides):
        array = np.array(
            array, dtype=array.dtype.newbyteorder("=")
        )  # torch refuses read-only arrays and negative strides
    value = cast(Tensor, torch.from_numpy(array))  # type: ignore[reportUnknownMemberType]
    return value if wanted is not None else value.to(TORCH_DTYPES[spec.dtype])


def _cast_tensor(value: Tensor, spec: TensorSpec) -> Tensor:
    wanted = TORCH_DTYPES[spec.dtype]
    if value.dtype == wanted:
        return value
    if value.dtype in DTYPE_NAMES and not (value.is_floating_point() and wanted.is_floating_point):
        _check_values(_numpy(value), spec)
    return value.to(wanted)


def _check_values(array: np.ndarray[Any, Any], spec: TensorSpec) -> None:
    """Refuses lossy conversions: fractions and NaN to integers, numbers out of range, complex to real."""
    wanted = spec.dtype
    if array.dtype.kind == "c" and not wanted.startswith("complex"):
        raise InputError(f"feature {spec.name!r} holds complex numbers; the tower takes {wanted}")
    if wanted == "bool":
        _refuse_where((array != 0) & (array != 1), array, spec, "is neither false nor true")
    if wanted not in _LIMITS or array.dtype.kind == "b":
        return
    if array.dtype.kind == "f":
        _refuse_where(
            ~(array == np.floor(array)) | np.isinf(array), array, spec, f"is not an integer; the tower takes {wanted}"
        )
        _refuse_where(np.abs(array) > 2.0**53, array, spec, "is a float too large to be an exact integer")
    limits = _LIMITS[wanted]
    if array.dtype.kind == "f" or np.iinfo(array.dtype).max > limits.max:
        _refuse_where(array > limits.max, array, spec, f"does not fit {wanted}")
    if array.dtype.kind == "f" or np.iinfo(array.dtype).min < limits.min:
        _refuse_where(array < limits.min, array, spec, f"does not fit {wanted}")


def _refuse_where(bad: np.ndarray[Any, Any], array: np.ndarray[Any, Any], spec: TensorSpec, why: str) -> None:
    if bad.any():
        place = np.argwhere(bad)[0]
        raise InputError(
            f"feature {spec.name!r}, row {int(place[0]) if len(place) else 0}: {array[tuple(place)]} {why}"
        )


# -- wording
# ------------------------------------------------------------------------------------------------------------


def _same_shapes(rows: Sequence[np.ndarray[Any, Any]], spec: TensorSpec) -> None:
    for index, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise _ragged(spec, index, list(row.shape), list(rows[0].shape))


def _ragged(spec: TensorSpec, row: int, found: list[int], first: list[int]) -> InputError:
    return InputError(
        f"feature {spec.name!r}, row {row}: has the shape {found}, but row 0 has {first}: rows must be equally long"
    )


def _kind(value: Any) -> str:
    shown = repr(value)
    return f"{shown if len(shown) <= 40 else shown[:37] + '...'} ({type(value).__name__})"


def _shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in spec.shape) + "]"


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name!r} ({spec.dtype} {_shape(spec)})" for name, spec in specs.items())
