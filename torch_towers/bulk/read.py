"""Readers: the rows of a file in blocks aligned to the batch size, whatever the file's own blocks are."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.sources import Source
from torch_towers.extras import need
from torch_towers.inputs.values import MISSING

MAX_VALUES = 1 << 20  # per line: an empty JSON list takes 64 bytes
_FREE = 64 << 20  # bytes that any compressed file may expand to

Bad = tuple[int, str]
"""An invalid row: its number, and the reason."""


@dataclass(slots=True)
class Block:
    """Rows of one file: their numbers, their columns (lists or numpy arrays), and the unreadable rows."""

    numbers: list[int]
    columns: dict[str, Any]
    bad: list[Bad] = field(default_factory=list[Bad])
    text: bool = False  # values are the bytes of CSV fields
    size: int = 0  # approximate bytes

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read of each row: columns by name, and the side ("query", "candidate") if a line is a pair."""

    columns: tuple[str, ...]
    optional: frozenset[str]
    side: str


def count_rows(source: Source) -> int | None:
    """The number of rows, if the file states it."""
    if source.kind != "parquet":
        return None
    return int(parquet_file(source).metadata.num_rows)


def read_blocks(
    source: Source,
    wanted: Wanted,
    size: int,
    skip: Callable[[int], bool],
    position: Callable[[float], None] | None = None,
) -> Generator[Block]:
    """The rows in blocks of rows `[i * size, (i + 1) * size)`, without the blocks for which `skip(i)` is true.

    `position` is called with the fraction of the file that has been read. Errors: `BulkError` for an unreadable file.
    """
    told: Callable[[float], None] = position or _untold
    try:
        if source.kind == "parquet":
            yield from _read_parquet(source, wanted, size, skip, told)
        elif source.kind == "jsonl":
            yield from _read_lines(source, wanted, size, skip, told)
        else:
            yield from _read_csv(source, wanted, size, skip, told)
    except BulkError:
        raise
    except READING as error:
        raise _unreadable(source, error) from error


READING = (OSError, ValueError, EOFError, zlib.error, csv.Error)  # pyarrow's errors are ValueError and OSError


def _unreadable(source: Source, error: BaseException) -> BulkError:
    return BulkError(f"{source.path}: cannot be read: {(str(error) or repr(error)).splitlines()[0]}")


def column_names(source: Source) -> list[str] | None:
    """The columns of the file; None for JSON lines, where each line has its own."""
    if source.kind == "jsonl":
        return None
    try:
        if source.kind == "parquet":
            names = list(parquet_file(source).schema_arrow.names)
        else:
            with _opened(source, _untold) as file:
                names = _header(_fields(source, file), source)
    except BulkError:
        raise
    except READING as error:
        raise _unreadable(source, error) from error
    if repeated := {name for name, count in Counter(names).items() if count > 1}:
        raise BulkError(f"{source.path}: two columns are named {min(repeated)!r}")
    return names


# -- Parquet ------------------------------------------------------------------------------------------------------------


def parquet_file(source: Source) -> Any:
    """Opens the file. Errors: `BulkError`."""
    if source.compression:
        raise BulkError(f"{source.path}: is a compressed Parquet file: decompress it first")
    parquet = need("pyarrow.parquet", "bulk")
    # Buffered reads instead of whole column chunks: a file with one huge row group is read in bounded memory.
    try:
        return parquet.ParquetFile(source.path, buffer_size=1 << 20, pre_buffer=False)
    except READING as error:
        raise _unreadable(source, error) from error


def id_type(source: Source, column: str) -> str:
    """ "int64" or "string": the type of the ids in this column of a Parquet file; other files hold text."""
    if source.kind != "parquet":
        return "string"
    types = need("pyarrow", "bulk").types
    found = parquet_file(source).schema_arrow.field(column).type
    if types.is_dictionary(found):
        found = found.value_type
    if types.is_integer(found):
        return "int64"
    if types.is_string(found) or types.is_large_string(found) or types.is_binary(found) or types.is_large_binary(found):
        return "string"
    raise BulkError(f"{source.path}: the column {column!r} holds {found}; ids are integers or text")


def _read_parquet(
    source: Source, wanted: Wanted, size: int, skip: Callable[[int], bool], told: Callable[[float], None]
) -> Generator[Block]:
    pa = need("pyarrow", "bulk")
    file = parquet_file(source)
    total = file.metadata.num_rows
    names = [name for name in wanted.columns if name in file.schema_arrow.names]
    held: list[Any] = []
    first = held_rows = 0  # number of the first buffered row
    start = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        blocks = range(start // size, -(-(start + rows) // size))
        last = max((block for block in blocks if not skip(block)), default=None)
        if last is None:  # none of it is needed, and no buffered block continues in it
            start += rows
            first, held, held_rows = start, [], 0
            continue
        if not held:
            first = start
        for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=names, use_threads=False):
            held.append(batch)
            held_rows += batch.num_rows
            while held_rows and first + held_rows >= (end := (first // size + 1) * size):
                table = pa.Table.from_batches(held)
                if not skip(first // size):
                    yield _arrow_block(table.slice(0, end - first), list(range(first, end)))
                held, held_rows = table.slice(end - first).to_batches(), held_rows - (end - first)
                first = end
            told((first + held_rows) / max(total, 1))
            if first // size > last:  # the rest of the group is not needed either
                held, held_rows = [], 0
                break
        start += rows
    if held_rows and not skip(first // size):
        yield _arrow_block(pa.Table.from_batches(held), list(range(first, first + held_rows)))
    told(1.0)


def _arrow_block(table: Any, numbers: list[int]) -> Block:
    columns = {name: arrow_column(table.column(name)) for name in table.column_names}
    return Block(numbers, columns, size=table.nbytes)


def arrow_column(column: Any) -> Any:
    """A chunked Arrow column as a numpy array if it holds plain numbers, else as a list (None for null)."""
    types = need("pyarrow", "bulk").types
    column = column.combine_chunks()
    if column.null_count == 0 and (types.is_integer(column.type) or types.is_floating(column.type)):
        return np.asarray(column)
    if (
        types.is_fixed_size_list(column.type)
        and column.null_count == 0
        and types.is_floating(column.type.value_type)
        and (flat := column.flatten()).null_count == 0
    ):
        return np.asarray(flat).reshape(-1, column.type.list_size)
    return column.to_pylist()


# -- CSV ----------------------------------------------------------------------------------------------------------------


def _fields(source: Source, file: Any) -> Iterator[list[str]]:
    """Rows of fields whose characters are the file's bytes; the signature decides how to decode them.

    Uses Python's parser: Arrow's does not report every row that it skips.
    """
    csv.field_size_limit(source.max_line)
    if source.kind == "csv":
        return csv.reader(_lines(source, io.TextIOWrapper(file, "latin-1", newline=""), ","))
    lines = _lines(source, io.TextIOWrapper(file, "latin-1", newline="\n"), "\t")
    return (line.rstrip("\r\n").split("\t") for line in lines)  # TSV has no quoting


def _lines(source: Source, file: io.TextIOWrapper, separator: str) -> Iterator[str]:
    """The lines of a file, within its limits: a compressed file may expand to any length."""
    while line := file.readline(source.max_line):
        _check_line(source, line, (separator,))
        yield line


def _check_line(source: Source, line: Any, marks: tuple[Any, ...]) -> None:
    """Limits the length of a line and its number of values, separated by `marks`. Errors: `BulkError`."""
    if len(line) >= source.max_line:
        raise BulkError(
            f"{source.path}: a line is longer than {source.max_line} bytes: is it a table? --max-line-bytes raises the limit"
        )
    if len(line) > MAX_VALUES and sum(map(line.count, marks)) > MAX_VALUES:
        raise BulkError(f"{source.path}: a line holds more than {MAX_VALUES} values: is it a table?")


def _header(rows: Iterator[list[str]], source: Source) -> list[str]:
    names = next(rows, None)
    if not names:
        raise BulkError(f"{source.path}: is empty: the first line must name the columns")
    try:
        return [name.encode("latin-1").decode("utf-8-sig") for name in names]
    except UnicodeDecodeError as error:
        raise BulkError(f"{source.path}: the first line, which names the columns, is not UTF-8") from error


def _read_csv(
    source: Source, wanted: Wanted, size: int, skip: Callable[[int], bool], told: Callable[[float], None]
) -> Generator[Block]:
    with _opened(source, told) as file:
        rows = _fields(source, file)
        header = _header(rows, source)
        places = {name: header.index(name) for name in wanted.columns if name in header}
        row = 0

        def block() -> Block | None:
            nonlocal row
            made, end = Block([], {name: [] for name in places}, text=True), (row // size + 1) * size
            unwanted = skip(row // size)
            for fields in rows:
                if not fields or fields == [""] != header:  # an empty line
                    continue
                if unwanted:
                    pass
                elif len(fields) != len(header):
                    made.bad.append((row, f"it has {len(fields)} values; the header names {len(header)}"))
                else:
                    made.numbers.append(row)
                    for name, place in places.items():
                        made.columns[name].append(fields[place].encode("latin-1"))
                        made.size += len(fields[place])
                row += 1
                if row == end:
                    return made
            return made if made.numbers or made.bad else None

        while (made := block()) is not None:
            if made.numbers or made.bad:
                yield made
    told(1.0)


# -- JSON lines ---------------------------------------------------------------------------------------------------------


def _read_lines(
    source: Source, wanted: Wanted, size: int, skip: Callable[[int], bool], told: Callable[[float], None]
) -> Generator[Block]:
    """Uses Python's parser: Arrow's needs one schema for all lines, and does not report which line is invalid."""
    with _opened(source, told) as file:
        index, row, ended = 0, 0, False
        while not ended:
            rows: list[Mapping[str, Any]] = []
            block = Block([], {})
            unwanted = skip(index)
            while row < (index + 1) * size:
                line = file.readline(source.max_line)
                if not line:
                    ended = True
                    break
                _check_line(source, line, (b",", b"[", b"{"))
                if not line.strip():
                    continue
                if not unwanted:
                    try:
                        rows.append(instance(json.loads(line), wanted))
                        block.numbers.append(row)
                        block.size += len(line)
                    except (ValueError, RecursionError) as error:
                        block.bad.append((row, _json_problem(error)))
                row += 1
            if not unwanted and (rows or block.bad):
                block.columns = {name: [values.get(name, MISSING) for values in rows] for name in wanted.columns}
                yield block
            index += 1
    told(1.0)


def _json_problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"the line is not JSON: {error.msg} at character {error.pos}"
    return "the line is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or "it is nested too deeply"


def instance(value: Any, wanted: Wanted) -> Mapping[str, Any]:
    """The features of one line: a plain row, a Vertex training pair, or a line of a Vertex batch prediction.

    Raises `ValueError` with the reason.
    """
    if isinstance(value, Mapping) and "prediction" in value and "instance" in value:
        value = cast(Any, value["instance"])
    if not isinstance(value, Mapping):
        features = [name for name in wanted.columns if name not in wanted.optional]
        if len(features) == 1:  # for a tower of one input, the line is its value
            return {features[0]: value}
        raise ValueError(f"the line is not an object with the features {', '.join(map(repr, features))}")
    row = cast("Mapping[str, Any]", value)
    if isinstance(row.get("data"), str) and row.keys() <= {"data", "key"}:
        data = json.loads(row["data"])
        if not isinstance(data, Mapping):
            raise ValueError("its 'data' is not a JSON object")
        return {**row, **cast("Mapping[str, Any]", data)}
    if wanted.side not in wanted.columns and isinstance(row.get(wanted.side), Mapping):
        return {**row, **row[wanted.side]}
    if "prediction" in row and "key" in row and not wanted.columns == ("prediction",):
        raise ValueError(
            "the line has a key and a prediction but no instance (the job ran with key_field): embed that job's input instead"
        )
    other = "query" if wanted.side == "candidate" else "candidate"
    if isinstance(row.get(other), Mapping) and other not in wanted.columns:
        raise ValueError(f"the pair has no {wanted.side!r}")
    return row


def plain(value: Any) -> Any:
    """Decodes `{"b64": "..."}` to bytes, also in lists."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if set(table) == {"b64"} and isinstance(table["b64"], str):
            try:
                return base64.b64decode(table["b64"], validate=True)
            except ValueError as error:
                raise ValueError("its b64 is not base64") from error
        raise ValueError("the value is an object")
    return [plain(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _untold(share: float) -> None:
    """The default `position`: ignores progress."""


class _Told(io.RawIOBase):
    """A file that reports which fraction of it has been read."""

    def __init__(self, source: Source, told: Callable[[float], None]) -> None:
        self._file = open(source.path, "rb", buffering=0)  # noqa: SIM115  (closed with this)
        self._size, self._told = max(source.size, 1), told

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._told(min(1.0, self._file.tell() / self._size))
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(source: Source, told: Callable[[float], None]) -> Any:
    """Opens the file, decompressed."""
    file = io.BufferedReader(_Told(source, told), 1 << 20)
    if source.compression is None:
        return file
    unpacked: Any = gzip.GzipFile(fileobj=file) if source.compression == "gzip" else bz2.BZ2File(file)
    return io.BufferedReader(_Unpacked(source, unpacked), 1 << 20)


class _Unpacked(io.RawIOBase):
    """A compressed file with a limited compression ratio. Errors: `BulkError`."""

    def __init__(self, source: Source, file: Any) -> None:
        self._file, self._source = file, source
        self._read, self._most = 0, _FREE + source.max_ratio * source.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._read += count
        if self._read > self._most:
            raise BulkError(
                f"{self._source.path}: decompresses to over {self._most} bytes, more than {self._source.max_ratio} times its size: "
                "if you trust the file, raise the limit with --max-ratio"
            )
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
