"""Lookup tables and their contents: from constants, from the checkpoint, or from a vocabulary file by TensorFlow's own rules.

Source: tensorflow/core/kernels/lookup_util.cc (TextFileLineIterator), tensorflow/core/lib/io/inputbuffer.cc (ReadLine).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.files import read_asset

TABLE_OPS = frozenset(
    [
        "HashTable",
        "HashTableV2",
        "MutableHashTable",
        "MutableHashTableV2",
        "MutableDenseHashTable",
        "MutableDenseHashTableV2",
        "AnonymousHashTable",
        "AnonymousMutableHashTable",
        "AnonymousMutableDenseHashTable",
        "MutableHashTableOfTensors",
        "MutableHashTableOfTensorsV2",
    ]
)
_LINE_NUMBER, _WHOLE_LINE = -1, -2
_NUMBERS = {"int32": np.int32, "int64": np.int64, "float32": np.float32, "float64": np.float64}


@dataclass(slots=True)
class Table:
    """A lookup table. `keys` and `values` are read when first asked for: 1-D arrays of one length, in the order in which TensorFlow inserts them."""

    name: str
    key_dtype: str
    value_dtype: str
    file: Path | None
    mutable: bool
    _load: Callable[[], tuple[np.ndarray, np.ndarray]]
    _contents: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def keys(self) -> np.ndarray:
        return self._read()[0]

    @property
    def values(self) -> np.ndarray:
        return self._read()[1]

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if self._contents is None:
            keys, values = self._load()
            if len(keys) != len(values):
                raise CorruptModelError(
                    f"table '{self.name}': {len(keys)} keys, expected as many as its {len(values)} values"
                )
            self._contents = (keys, values)
        return self._contents

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class TextFile:
    """The attributes of InitializeTableFromTextFileV2."""

    key_index: int
    value_index: int
    vocab_size: int = -1
    delimiter: bytes = b"\t"
    offset: int = 0


def read_text_file(path: Path, form: TextFile, key_dtype: str, value_dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(keys, values) of a vocabulary file. Raises CorruptModelError where TensorFlow refuses the file."""
    lines = _lines(read_asset(path))
    if form.vocab_size != -1:
        if len(lines) < form.vocab_size:
            raise CorruptModelError(f"{path}: {len(lines)} lines, expected {form.vocab_size} (vocab_size)")
        lines = lines[: form.vocab_size]
    if b"" in lines:
        raise CorruptModelError(f"{path}: line {lines.index(b'') + 1} is empty, which TensorFlow refuses")
    return tuple(
        _column(path, lines, index, form, dtype)
        for index, dtype in ((form.key_index, key_dtype), (form.value_index, value_dtype))
    )  # type: ignore[reportReturnType]


def _lines(data: bytes) -> list[bytes]:
    """TensorFlow drops every carriage return, not only those before a newline."""
    lines = data.replace(b"\r", b"").split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _column(path: Path, lines: list[bytes], index: int, form: TextFile, dtype: str) -> np.ndarray:
    if index == _LINE_NUMBER:
        if dtype != "int64":
            raise CorruptModelError(f"{path}: line numbers as {dtype}, expected int64")
        return np.arange(form.offset, form.offset + len(lines), dtype=np.int64)
    if index == _WHOLE_LINE:
        tokens = lines
    else:
        tokens = []
        for number, line in enumerate(lines, 1):
            fields = line.split(form.delimiter)
            if index >= len(fields):
                raise CorruptModelError(f"{path}: line {number} has {len(fields)} columns, expected more than {index}")
            tokens.append(fields[index])
    if dtype == "string":
        column = np.empty(len(tokens), object)
        column[:] = tokens
        return column
    if dtype not in _NUMBERS:
        raise PortingError(f"{path}: a column of dtype {dtype}, which TensorFlow does not read from a file")
    try:
        return np.array([(float if dtype.startswith("float") else int)(token) for token in tokens], _NUMBERS[dtype])
    except (ValueError, OverflowError) as error:
        raise CorruptModelError(f"{path}: a field is not a valid {dtype} ({error})") from error
