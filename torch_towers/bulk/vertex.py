"""Vertex Vector Search: its batch files (JSON lines, CSV, Avro) with restricts, numeric restricts and crowding tags,
and their limits.

Source: cloud.google.com, "Input data format and structure" of Vector Search.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.features import Problems
from torch_towers.bulk.job import Job, NumericKind, Output
from torch_towers.bulk.writer import Writer
from torch_towers.extras import need
from torch_towers.formats.text_lines import to_lines, unescape
from torch_towers.inputs.values import MISSING, short

MAX_FILES = 5000
SUFFIXES = {"vertex-json": ".json", "vertex-csv": ".csv", "vertex-avro": ".avro"}
_INT_MAX = 2**31 - 1  # Avro's int, the documented type of value_int


class VertexWriter(Writer):
    """Writes one file of a batch, and beside it the ids and their sorted hashes, to detect duplicate ids."""

    takes_restricts = True

    def __init__(self, job: Job, folder: Path, name: str, dim: int, id_type: str) -> None:
        place, ids = folder / f"{name}{SUFFIXES[job.output.format]}", folder / f"{name}.ids"
        self._output, self._ids, self._place = job.output, ids, place
        self._hashes: list[bytes] = []
        self._file: Any = place.open("wb")
        self._names: Any = beside(ids, ".txt").open("wb")
        self._form = _FORMS[job.output.format](self._file)
        # Many rows share a category, so its tags are memoized. `typed`, because 1 and True are equal keys.
        self._known = lru_cache(4096, typed=True)(self._tags)

    def add(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        problems: Problems = {}
        for position in np.flatnonzero(~np.isfinite(embeddings).all(axis=1)).tolist():
            problems[position] = "the embedding holds NaN or infinity, which Vector Search refuses"
        names = list(map(str, ids))
        options = self._options(names, extras, problems)
        if problems:
            kept = [position for position in range(len(names)) if position not in problems]
            names, embeddings = [names[position] for position in kept], embeddings[kept]
        encoded = list(map(str.encode, names))
        self._names.write(to_lines(encoded))
        self._hashes += [hashlib.blake2b(name, digest_size=8).digest() for name in encoded]
        self._file.write(self._form.rows(names, embeddings, options))
        return problems

    def close(self) -> list[Path]:
        self._file.close()
        self._names.close()
        hashes = np.frombuffer(b"".join(self._hashes), np.uint64)
        np.save(beside(self._ids, ".npy"), np.sort(hashes), allow_pickle=False)
        return [self._place, beside(self._ids, ".txt"), beside(self._ids, ".npy")]

    @staticmethod
    def check(output: Output, files: int | None) -> None:
        check_output(output, files)

    @staticmethod
    def is_result(file: str) -> bool:
        return ".ids" not in file

    @staticmethod
    def finish(job: Job, parts: Sequence[Path], rows: int, dim: int, id_type: str) -> None:
        twice = repeated_id([beside(part, ".ids") for part in parts])
        if twice is not None:
            raise BulkError(
                f"the id {twice!r} is not unique, as Vector Search requires: make the ids of the input unique, "
                f"remove {job.folder} and {job.work}, and start over"
            )

    def _options(self, names: list[str], extras: Mapping[str, Sequence[Any]], problems: Problems) -> list[Any]:
        """Restricts, numeric restricts and crowding tag of each valid row, in the output format."""
        output = self._output
        columns = [extras[column] for _, column in (*output.restricts, *output.denies)]
        if output.crowding_tag is not None:
            columns.append(extras[output.crowding_tag])
        nothing: Sequence[Any] = [()] * len(names)
        tags = list(zip(*columns, strict=True)) if columns else nothing
        numbers = list(zip(*(extras[column] for _, column, _ in output.numeric_restricts), strict=True)) or nothing
        found: list[Any] = []
        for position, (name, row, values) in enumerate(zip(names, tags, numbers, strict=True)):
            if position in problems:
                continue
            try:
                self._check_id(name)
                found.append((self._row_tags(row), self._numbers(values) if values else ""))
            except ValueError as error:
                problems[position] = str(error)
        return found

    def _check_id(self, name: str) -> None:
        if not name:
            raise ValueError("the id is empty")
        if self._output.format == "vertex-csv":
            _csv_text(name, "the id")

    def _row_tags(self, values: tuple[Any, ...]) -> Any:
        try:
            return self._known(*values)
        except TypeError:  # lists are unhashable
            return self._tags(*values)

    def _tags(self, *values: Any) -> Any:
        """Restricts and crowding tag for the values of their columns."""
        output = self._output
        restricts: dict[str, dict[str, Any]] = {}
        kinds = ["allow"] * len(output.restricts) + ["deny"] * len(output.denies)
        for kind, (namespace, column), value in zip(kinds, (*output.restricts, *output.denies), values, strict=False):
            if texts := _texts(value, column):
                restricts.setdefault(namespace, {"namespace": namespace}).setdefault(kind, []).extend(texts)
        tag: list[str] = []
        if output.crowding_tag is not None and len(tag := _texts(values[-1], output.crowding_tag)) > 1:
            raise ValueError(f"column {output.crowding_tag!r}: a crowding tag is a single text")
        return self._form.tags(list(restricts.values()), tag[0] if tag else None)

    def _numbers(self, values: Sequence[Any]) -> Any:
        """The numeric restricts of one row."""
        return self._form.numbers(
            [
                (namespace, kind, _value(value, kind, column))
                for (namespace, column, kind), item in zip(self._output.numeric_restricts, values, strict=True)
                if (value := _one(item)) is not None
            ]
        )


def check_output(output: Output, files: int | None) -> None:
    """Refuses early what Vector Search would refuse at the end. Errors: `BulkError`."""
    if files is not None and files > MAX_FILES:
        raise BulkError(
            f"the output would have {files} files, and Vector Search takes {MAX_FILES}: give a larger --rows-per-part, "
            "and join small inputs"
        )
    for namespace, *_ in (*output.restricts, *output.denies, *output.numeric_restricts):
        bad = output.format == "vertex-csv" and any(c in namespace for c in ',="\r\n')
        if (
            not namespace
            or bad
            or (output.format == "vertex-csv" and namespace in ("crowding_tag",))
            or namespace[0] == "#"
        ):
            raise BulkError(f"the restrict namespace {namespace!r} cannot be written as {output.format}")
    names = [namespace for namespace, *_ in output.numeric_restricts]
    if len(set(names)) != len(names):
        raise BulkError("a numeric restrict has one value per namespace: a namespace is given twice")


def _texts(value: Any, column: str) -> list[str]:
    """A text or a list of texts; empty for a missing value."""
    if value is None or value is MISSING:
        return []
    items = cast("list[Any]", value if type(value) is list else [value])
    return [_text(item, column) for item in items if item is not None and item != "" and item != b""]


def _text(value: Any, column: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"column {column!r}: the text is not UTF-8") from error
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, np.integer)):
        try:
            str(cast(Any, value)).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"column {column!r}: the text is not UTF-8") from error
        return str(cast(Any, value))
    raise ValueError(f"column {column!r}: {value!r} is not text")


def _one(value: Any) -> Any:
    while type(value) is list and len(cast("list[Any]", value)) == 1:
        value = cast("list[Any]", value)[0]
    return None if value is None or value is MISSING or value in ("", b"", []) else cast(Any, value)


def _value(value: Any, kind: NumericKind, column: str) -> int | float:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    try:
        if isinstance(text, bool) or (isinstance(text, str) and "_" in text):
            raise ValueError
        number = int(text) if kind == "int" else float(text)
        if kind == "int" and not isinstance(text, str) and number != text:
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"column {column!r}: {short(value)} is not {'an integer' if kind == 'int' else 'a number'}"
        ) from error
    if kind == "int":
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"column {column!r}: {short(value)} has more than 64 bits")
    elif not math.isfinite(number) or (kind == "float" and abs(number) >= _FLOAT_END):
        raise ValueError(f"column {column!r}: {value!r} is not finite")
    return number


def _numbers(embeddings: np.ndarray[Any, Any]) -> list[str]:
    """Each row as "0.5,-1e-7,...": the shortest decimals that round-trip to float32, by Arrow."""
    pa, compute = need("pyarrow", "bulk"), need("pyarrow.compute", "bulk")
    rows, dim = embeddings.shape
    texts = compute.cast(pa.array(np.ascontiguousarray(embeddings).reshape(-1)), pa.string())
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * dim)
    return cast("list[str]", compute.binary_join(pa.ListArray.from_arrays(offsets, texts), ",").to_pylist())


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_quoted: Callable[[str], str] = json.encoder.encode_basestring  # type: ignore[attr-defined]
_FLOAT_END = 2.0**128 - 2.0**103
"""Numbers from here on overflow float32."""


class _Json:
    """JSON lines. `tags` and `numbers` return JSON fragments."""

    def __init__(self, file: Any) -> None:
        pass

    def tags(self, restricts: list[dict[str, Any]], tag: str | None) -> tuple[str, str]:
        before = f',"restricts":{_JSON.encode(restricts)}' if restricts else ""
        return before, "" if tag is None else f',"crowding_tag":{_quoted(tag)}'

    def numbers(self, values: Sequence[tuple[str, str, int | float]]) -> str:
        if not values:
            return ""
        items = [f'{{"namespace":{_quoted(n)},"value_{kind}":{value!r}}}' for n, kind, value in values]
        return f',"numeric_restricts":[{",".join(items)}]'

    def rows(self, names: Sequence[str], embeddings: np.ndarray[Any, Any], options: Sequence[Any]) -> bytes:
        lines = [
            f'{{"id":{name},"embedding":[{vector}]{before}{numbers}{after}}}\n'
            for name, vector, ((before, after), numbers) in zip(
                map(_quoted, names), _numbers(embeddings), options, strict=True
            )
        ]
        return "".join(lines).encode()


class _Csv:
    """CSV lines."""

    def __init__(self, file: Any) -> None:
        pass

    def tags(self, restricts: list[dict[str, Any]], tag: str | None) -> str:
        fields: list[str] = []
        if tag is not None:
            _csv_text(tag, "the crowding tag")
            fields.append(f",crowding_tag={tag}")
        for item in restricts:
            for value in (*item.get("allow", ()), *item.get("deny", ())):
                _csv_text(value, "a restrict")
            if any(value.startswith("!") for value in item.get("allow", ())):
                raise ValueError("a restrict begins with '!', which denies in CSV: use vertex-json")
            fields += [f",{item['namespace']}={value}" for value in item.get("allow", ())]
            fields += [f",{item['namespace']}=!{value}" for value in item.get("deny", ())]
        return "".join(fields)

    def numbers(self, values: Sequence[tuple[str, str, int | float]]) -> str:
        return "".join([f",#{namespace}={value}{kind[0]}" for namespace, kind, value in values])

    def rows(self, names: Sequence[str], embeddings: np.ndarray[Any, Any], options: Sequence[Any]) -> bytes:
        lines = [
            f"{name},{vector}{tags}{numbers}\n"
            for name, vector, (tags, numbers) in zip(names, _numbers(embeddings), options, strict=True)
        ]
        return "".join(lines).encode()


def _csv_text(value: str, what: str) -> None:
    """Vector Search's documentation defines no quoting."""
    if found := next((c for c in value if c in ',"\r\n'), None):
        raise ValueError(
            f"{what} {value!r} holds {found!r}, which Vector Search's CSV cannot represent: use vertex-json"
        )


_AVRO: Any = {
    "type": "record", "name": "FeatureVector", "fields": [
        {"name": "id", "type": "string"},
        {"name": "embedding", "type": {"type": "array", "items": "float"}},
        {"name": "sparse_embedding", "type": ["null", {"type": "record", "name": "sparse_embedding", "fields": [
            {"name": "values", "type": {"type": "array", "items": "float"}},
            {"name": "dimensions", "type": {"type": "array", "items": "long"}}]}]},
        {"name": "restricts", "type": ["null", {"type": "array", "items": {"type": "record", "name": "Restrict", "fields": [
            {"name": "namespace", "type": "string"},
            {"name": "allow", "type": ["null", {"type": "array", "items": "string"}]},
            {"name": "deny", "type": ["null", {"type": "array", "items": "string"}]}]}}]},
        {"name": "numeric_restricts", "default": None, "type": ["null", {"type": "array", "items": {
            "type": "record", "name": "NumericRestrict", "fields": [
                {"name": "namespace", "type": "string"},
                {"name": "value_int", "type": ["null", "int"], "default": None},
                {"name": "value_float", "type": ["null", "float"], "default": None},
                {"name": "value_double", "type": ["null", "double"], "default": None}]}}]},
        {"name": "crowding_tag", "type": ["null", "string"]},
    ],
}  # fmt: skip


_MARKER = hashlib.blake2b(b"torch_towers", digest_size=16).digest()
"""The sync marker between blocks. It is random by default; a fixed one gives the same bytes for the same rows."""


class _Avro:
    """Avro blocks, one per batch. fastavro writes the header; the records, all of one schema, are encoded
    here: fastavro takes 27 us for one of 64 numbers, this 2."""  # fmt: skip

    def __init__(self, file: Any) -> None:
        write = need("fastavro.write", "vertex")
        write.Writer(file, _AVRO, sync_marker=_MARKER).flush()

    def tags(self, restricts: list[dict[str, Any]], tag: str | None) -> tuple[bytes, bytes]:
        items = [
            _avro_text(r["namespace"]) + _avro_texts(r.get("allow")) + _avro_texts(r.get("deny")) for r in restricts
        ]
        return _avro_array(items) if items else b"\0", b"\0" if tag is None else b"\2" + _avro_text(tag)

    def numbers(self, values: Sequence[tuple[str, str, int | float]]) -> bytes:
        if any(kind == "int" and abs(value) > _INT_MAX for _, kind, value in values):
            raise ValueError("a value_int exceeds the 32 bits of Vector Search's Avro schema: use vertex-json")  # fmt: skip
        items = [
            _avro_text(namespace) + b"".join([b"\2" + pack(value) if name == kind else b"\0" for name, pack in _AVRO_NUMBERS])
            for namespace, kind, value in values
        ]  # fmt: skip
        return _avro_array(items) if items else b"\0"

    def rows(self, names: Sequence[str], embeddings: np.ndarray[Any, Any], options: Sequence[Any]) -> bytes:
        if not names:
            return b""
        width = embeddings.shape[1] * 4
        vectors, count = np.ascontiguousarray(embeddings, "<f4").tobytes(), _avro_long(embeddings.shape[1])
        records = b"".join(
            [
                b"".join((
                    _avro_text(name), count, vectors[i * width : (i + 1) * width], b"\0\0", restricts, numbers or b"\0", tag,
                ))
                for i, (name, ((restricts, tag), numbers)) in enumerate(zip(names, options, strict=True))
            ]
        )  # fmt: skip
        return _avro_long(len(names)) + _avro_long(len(records)) + records + _MARKER


def _avro_long(value: int) -> bytes:
    """Zigzag varint encoding, lowest bits first."""
    value, out = (value << 1) ^ (value >> 63), bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _avro_text(value: str) -> bytes:
    data = value.encode()
    return _avro_long(len(data)) + data


def _avro_array(items: Sequence[bytes]) -> bytes:
    """A non-null array, in a union whose first type is null."""
    return b"\2" + _avro_long(len(items)) + b"".join(items) + b"\0"


def _avro_texts(values: Sequence[str] | None) -> bytes:
    return b"\0" if values is None else _avro_array([_avro_text(value) for value in values])


_AVRO_NUMBERS: tuple[tuple[str, Any], ...] = (
    ("int", _avro_long), ("float", struct.Struct("<f").pack), ("double", struct.Struct("<d").pack),
)  # fmt: skip
_FORMS: dict[str, Any] = {"vertex-json": _Json, "vertex-csv": _Csv, "vertex-avro": _Avro}


# -- duplicate ids
# ------------------------------------------------------------------------------------------------------


def beside(path: Path, suffix: str) -> Path:
    """ "part.ids" -> "part.ids.txt"."""
    return path.with_name(path.name + suffix)


def repeated_id(folders: Sequence[Path], budget: int = 8 << 20) -> str | None:
    """A duplicate id in the parts with ids at `folders` (without suffix), or None; holds `budget` hashes at a time.

    The hashes of each part are sorted, so one range of hashes is merged at a time.
    """
    hashes = [np.load(beside(path, ".npy"), mmap_mode="r", allow_pickle=False) for path in folders]
    total = sum(len(part) for part in hashes)
    ranges = max(1, -(-total // budget))
    starts = [np.zeros(len(hashes), np.int64)]
    for i in range(1, ranges):
        bound = np.uint64(i * (1 << 64) // ranges)
        starts.append(np.array([np.searchsorted(part, bound) for part in hashes]))
    starts.append(np.array([len(part) for part in hashes]))
    for low, high in pairwise(starts):
        pieces = [part[a:b] for part, a, b in zip(hashes, low.tolist(), high.tolist(), strict=True)]
        merged = np.sort(np.concatenate(pieces)) if pieces else np.zeros(0, np.uint64)
        for value in np.unique(merged[1:][merged[1:] == merged[:-1]]).tolist():
            holders = [path for path, piece in zip(folders, pieces, strict=True) if np.isin(np.uint64(value), piece)]
            if found := _same_text(holders, value):
                return found
    return None


def _same_text(holders: Sequence[Path], value: int) -> str | None:
    """The duplicate id among those with this hash; None if different ids share the hash."""
    seen: set[bytes] = set()
    for name in _ids(holders):
        if int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") == value:
            if name in seen:
                return name.decode()
            seen.add(name)
    return None


def _ids(holders: Sequence[Path]) -> Iterator[bytes]:
    for path in holders:
        with io.BufferedReader(cast(Any, beside(path, ".txt").open("rb", buffering=0))) as file:
            for line in file:
                yield unescape(line[:-1])
