"""Readers: the rows of a file as blocks that begin and end at multiples of the batch size, whatever the file's own blocks are."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.sources import Source
from torch_towers.extras import need

MAX_LINE = 256 << 20
_CSV_BLOCK = 1 << 20

Bad = tuple[int, str]
"""A row that cannot be used: its number, and why."""


@dataclass(slots=True)
class Block:
    """Rows of one file: their numbers, their columns (lists, or numpy arrays), and those that could not be read at all."""

    numbers: list[int]
    columns: dict[str, Any]
    bad: list[Bad] = field(default_factory=list[Bad])
    text: bool = False  # values are the bytes of a CSV file's fields

    def __len__(self) -> int:
        return len(self.numbers)


class Missing:
    """Stands where a row of JSON lacks a value."""


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of each row: columns by name, and the side ("query", "candidate") where a line is a pair."""

    columns: tuple[str, ...]
    optional: frozenset[str]
    side: str


def count_rows(source: Source) -> int | None:
    """The number of rows, where the file tells it."""
    if source.kind != "parquet":
        return None
    return int(_parquet(source).metadata.num_rows)


def read_blocks(
    source: Source,
    wanted: Wanted,
    size: int,
    skip: Callable[[int], bool],
    position: Callable[[float], None] | None = None,
) -> Iterator[Block]:
    """The rows in blocks whose numbers lie in `[i * size, (i + 1) * size)`, without the blocks for which `skip(i)` is true.

    `position` is told which share of the file has been read. Errors: `BulkError` for a file that cannot be read.
    """
    told = position or (lambda share: None)
    try:
        if source.kind == "parquet":
            yield from _read_parquet(source, wanted, size, skip, told)
        elif source.kind == "jsonl":
            yield from _read_lines(source, wanted, size, skip, told)
        else:
            yield from _read_csv(source, wanted, size, skip, told)
    except BulkError:
        raise
    except (OSError, ValueError, EOFError) as error:  # pyarrow's errors are ValueError and OSError
        raise BulkError(
            f"{source.path}: cannot be read: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error


def column_names(source: Source) -> list[str] | None:
    """The columns that the file has; None for JSON lines, where each line has its own."""
    if source.kind == "jsonl":
        return None
    try:
        names = list(_parquet(source).schema_arrow.names) if source.kind == "parquet" else _header(source)
    except (OSError, ValueError, EOFError) as error:
        raise BulkError(f"{source.path}: cannot be read: {str(error).splitlines()[0]}") from error
    if repeated := {name for name in names if names.count(name) > 1}:
        raise BulkError(f"{source.path}: two columns are named {min(repeated)!r}")
    return names


# -- Parquet ------------------------------------------------------------------------------------------------------------


def _parquet(source: Source) -> Any:
    if source.compression:
        raise BulkError(f"{source.path}: a Parquet file is compressed inside: unpack it first")
    parquet = need("pyarrow.parquet", "bulk")
    # A buffer rather than whole column chunks: a file with one row group of any size is read in bounded memory.
    return parquet.ParquetFile(source.path, buffer_size=1 << 20, pre_buffer=False)


def id_type(source: Source, column: str) -> str:
    """ "int64" or "string": how the ids in this column of a Parquet file are written; other files hold text."""
    if source.kind != "parquet":
        return "string"
    types = need("pyarrow", "bulk").types
    found = _parquet(source).schema_arrow.field(column).type
    if types.is_dictionary(found):
        found = found.value_type
    if types.is_integer(found):
        return "int64"
    if types.is_string(found) or types.is_large_string(found) or types.is_binary(found) or types.is_large_binary(found):
        return "string"
    raise BulkError(f"{source.path}: the column {column!r} holds {found}; ids are integers or text")


def _read_parquet(
    source: Source, wanted: Wanted, size: int, skip: Callable[[int], bool], told: Callable[[float], None]
) -> Iterator[Block]:
    pa = need("pyarrow", "bulk")
    file = _parquet(source)
    total = file.metadata.num_rows
    names = [name for name in wanted.columns if name in file.schema_arrow.names]
    held: list[Any] = []
    first = held_rows = 0  # number of the first row held
    start = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        blocks = range(start // size, -(-(start + rows) // size))
        if all(skip(block) for block in blocks):  # nothing of it is wanted, nor does anything held go on in it
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
        start += rows
    if held_rows and not skip(first // size):
        yield _arrow_block(pa.Table.from_batches(held), list(range(first, first + held_rows)))
    told(1.0)


def _arrow_block(table: Any, numbers: list[int]) -> Block:
    return Block(numbers, {name: arrow_column(table.column(name)) for name in table.column_names})


def arrow_column(column: Any) -> Any:
    """A chunked Arrow column as a numpy array where it holds plain numbers, else as a list (None for null)."""
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


def _csv(
    source: Source, names: Sequence[str] | None, broken: Callable[[Any], str], told: Callable[[float], None]
) -> Any:
    """All columns as bytes: what a value means is the signature's to say, not the first block's."""
    pa, csv = need("pyarrow", "bulk"), need("pyarrow.csv", "bulk")
    quoted = source.kind == "csv"  # tab-separated values know no quotes
    stream = pa.PythonFile(_opened(source, told), mode="r")
    parse = csv.ParseOptions(
        delimiter="," if quoted else "\t", quote_char='"' if quoted else False, double_quote=quoted,
        newlines_in_values=quoted, invalid_row_handler=broken,
    )  # fmt: skip
    types = None if names is None else {name: pa.binary() for name in names}
    convert = csv.ConvertOptions(
        column_types=types, include_columns=names, strings_can_be_null=False, check_utf8=False
    )  # fmt: skip
    read = csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK)
    return csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)


def _header(source: Source) -> list[str]:
    try:
        with _csv(source, None, lambda row: "skip", lambda share: None) as reader:
            return list(reader.schema.names)
    except ValueError as error:
        if "Empty CSV" in str(error):
            raise BulkError(f"{source.path}: is empty: the first line must name the columns") from error
        raise


def _read_csv(
    source: Source, wanted: Wanted, size: int, skip: Callable[[int], bool], told: Callable[[float], None]
) -> Iterator[Block]:
    broken: list[Bad] = []  # rows with too few or too many values, which Arrow leaves out

    def note(row: Any) -> str:
        broken.append((row.number - 2, f"it has {row.actual_columns} values; the header names {row.expected_columns}"))
        return "skip"

    header = _header(source)
    names = [name for name in wanted.columns if name in header]
    offsets: list[int] = []  # of each broken row, how many whole rows stand before it

    def number(index: int) -> int:
        """The row that the index-th whole row is."""
        for i in range(len(offsets), len(broken)):
            offsets.append(broken[i][0] - i)
        return index + bisect_right(offsets, index)

    def whole() -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
        done = 0
        with _csv(source, names, note, told) as reader:
            for batch in reader:
                count = batch.num_rows
                numbers = list(range(done, done + count)) if not broken else [number(done + i) for i in range(count)]
                done += count
                yield numbers, {name: batch.column(name).to_pylist() for name in names}

    yield from _cut(whole(), broken, size, skip)
    told(1.0)


def _cut(
    parts: Iterable[tuple[list[int], dict[str, list[Any]]]], broken: list[Bad], size: int, skip: Callable[[int], bool]
) -> Generator[Block]:
    """Rows that come in pieces of any length, in blocks of `size` numbers; `broken` grows as the pieces come."""
    numbers: list[int] = []
    columns: dict[str, list[Any]] = {}
    reported = 0

    def block(index: int, count: int) -> Block | None:
        nonlocal reported, numbers, columns
        upto = reported
        while upto < len(broken) and broken[upto][0] < (index + 1) * size:
            upto += 1
        bad, reported = broken[reported:upto], upto
        made = Block(numbers[:count], {name: column[:count] for name, column in columns.items()}, bad, True)
        numbers, columns = numbers[count:], {name: column[count:] for name, column in columns.items()}
        return None if skip(index) or not (made.numbers or bad) else made

    index = 0
    for more, values in parts:
        numbers += more
        columns = {name: columns.get(name, []) + column for name, column in values.items()} if columns else dict(values)
        while numbers and numbers[-1] >= (index + 1) * size:
            if made := block(index, bisect_right(numbers, (index + 1) * size - 1)):
                yield made
            index += 1
    while numbers or reported < len(broken):
        if made := block(index, bisect_right(numbers, (index + 1) * size - 1)):
            yield made
        index += 1


# -- JSON lines ---------------------------------------------------------------------------------------------------------


def _read_lines(
    source: Source, wanted: Wanted, size: int, skip: Callable[[int], bool], told: Callable[[float], None]
) -> Iterator[Block]:
    """Python's parser rather than Arrow's: Arrow's wants one schema for all lines, and does not say which line is broken."""
    with _opened(source, told) as file:
        index, row, ended = 0, 0, False
        while not ended:
            rows: list[Mapping[str, Any]] = []
            block = Block([], {})
            unwanted = skip(index)
            while row < (index + 1) * size:
                line = file.readline(MAX_LINE)
                if not line:
                    ended = True
                    break
                if len(line) == MAX_LINE:
                    raise BulkError(
                        f"{source.path}, row {row}: the line is longer than {MAX_LINE} bytes: is it JSON lines?"
                    )
                if not line.strip():
                    continue
                if not unwanted:
                    try:
                        rows.append(instance(json.loads(line), wanted))
                        block.numbers.append(row)
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

    Raises `ValueError` that says what is wrong.
    """
    if isinstance(value, Mapping) and "prediction" in value and "instance" in value:
        value = cast(Any, value["instance"])
    if not isinstance(value, Mapping):
        features = [name for name in wanted.columns if name not in wanted.optional]
        if len(features) == 1:  # a tower of one input: the line is its value
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
    """`{"b64": "..."}` as the bytes that it stands for, in lists too."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if table.keys() == {"b64"} and isinstance(table["b64"], str):
            try:
                return base64.b64decode(table["b64"], validate=True)
            except ValueError as error:
                raise ValueError("its b64 is not base64") from error
        raise ValueError("the value is an object")
    return [plain(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


class _Told(io.RawIOBase):
    """A file that tells which share of it has been read."""

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
    """The file, unpacked."""
    file = io.BufferedReader(_Told(source, told), 1 << 20)
    if source.compression == "gzip":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if source.compression == "bz2" else file
