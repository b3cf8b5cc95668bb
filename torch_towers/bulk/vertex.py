"""Vertex Vector Search: its batch files (JSON lines, CSV, Avro) with restricts, numeric restricts and crowding tags, and their limits.

Source: cloud.google.com, "Input data format and structure" of Vector Search.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.features import Problems
from torch_towers.bulk.job import Job, NumericKind, Output
from torch_towers.bulk.read import MISSING
from torch_towers.extras import need
from torch_towers.text_lines import to_lines, unescape

MAX_FILES = 5000
SUFFIXES = {"vertex-json": ".json", "vertex-csv": ".csv", "vertex-avro": ".avro"}
_INT_MAX = 2**31 - 1  # Avro's int, which the page gives for value_int


class VertexWriter:
    """Writes one file of a batch, and beside it its ids and their sorted hashes, by which ids are found that stand twice."""

    def __init__(self, job: Job, place: Path, ids: Path, dim: int) -> None:
        self._output, self._place, self._ids = job.output, place, ids
        self._hashes: list[bytes] = []
        self._file: Any = place.open("wb")
        self._names: Any = beside(ids, ".txt").open("wb")
        self._avro = _AvroWriter(self._file) if job.output.format == "vertex-avro" else None

    def check(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        """The rows that Vector Search would refuse, and why."""
        problems: Problems = {}
        for position in np.flatnonzero(~np.isfinite(embeddings).all(axis=1)).tolist():
            problems[position] = "the embedding holds NaN or infinity, which Vector Search refuses"
        for position in range(len(ids)):
            try:
                self._check_id(str(ids[position]))
                self._options({name: column[position] for name, column in extras.items()})
            except ValueError as error:
                problems.setdefault(position, str(error))
        return problems

    def add(self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]) -> None:
        names = [str(name) for name in ids]
        encoded = [name.encode() for name in names]
        self._names.write(to_lines(encoded))
        self._hashes += [hashlib.blake2b(name, digest_size=8).digest() for name in encoded]
        options = [
            self._options({name: column[position] for name, column in extras.items()}) for position in range(len(names))
        ]
        if self._avro is not None:
            self._avro.write(names, embeddings, options)
            return
        vectors = _numbers(embeddings)
        line = _json_line if self._output.format == "vertex-json" else _csv_line
        self._file.write("".join(map(line, names, vectors, options)).encode())

    def close(self) -> list[Path]:
        if self._avro is not None:
            self._avro.flush()
        self._file.close()
        self._names.close()
        hashes = np.frombuffer(b"".join(self._hashes), np.uint64)
        np.save(beside(self._ids, ".npy"), np.sort(hashes), allow_pickle=False)
        return [self._place, beside(self._ids, ".txt"), beside(self._ids, ".npy")]

    def _check_id(self, name: str) -> None:
        if not name:
            raise ValueError("the id is empty")
        if self._output.format == "vertex-csv":
            _csv_text(name, "the id")

    def _options(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Restricts, numeric restricts and the crowding tag of one row."""
        output, found = self._output, dict[str, Any]()
        if not row:
            return found
        restricts: dict[str, dict[str, Any]] = {}
        for kind, pairs in (("allow", output.restricts), ("deny", output.denies)):
            for namespace, column in pairs:
                if values := _texts(row[column], column):
                    restricts.setdefault(namespace, {"namespace": namespace}).setdefault(kind, []).extend(values)
        if restricts:
            found["restricts"] = list(restricts.values())
        numbers = [
            {"namespace": namespace, f"value_{kind}": _value(value, kind, column)}
            for namespace, column, kind in output.numeric_restricts
            if (value := _one(row[column])) is not None
        ]
        if numbers:
            found["numeric_restricts"] = numbers
        if output.crowding_tag is not None and (tag := _texts(row[output.crowding_tag], output.crowding_tag)):
            if len(tag) > 1:
                raise ValueError(f"column {output.crowding_tag!r}: a crowding tag is a single text")
            found["crowding_tag"] = tag[0]
        if output.format == "vertex-csv":
            for item in restricts.values():
                for value in (*item.get("allow", ()), *item.get("deny", ())):
                    _csv_text(value, "a restrict")
                if any(value.startswith("!") for value in item.get("allow", ())):
                    raise ValueError("a restrict begins with '!', which denies in CSV: use vertex-json")
            _csv_text(found.get("crowding_tag", ""), "the crowding tag")
        if output.format == "vertex-avro" and any(abs(cast(Any, n.get("value_int", 0))) > _INT_MAX for n in numbers):
            raise ValueError(
                "a value_int has more than the 32 bits that Vector Search's Avro schema holds: use vertex-json"
            )
        return found


def check_output(output: Output, files: int | None) -> None:
    """Refuses at once what Vector Search would refuse at the end. Errors: `BulkError`."""
    if files is not None and files > MAX_FILES:
        raise BulkError(
            f"the output would have {files} files, and Vector Search takes {MAX_FILES}: give a larger --rows-per-part, "
            "and join inputs that are small"
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
    """Text, or a list of texts; none where there is no value."""
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
            f"column {column!r}: {value!r} is not {'an integer' if kind == 'int' else 'a number'}"
        ) from error
    if not math.isfinite(number) or (kind == "float" and not np.isfinite(np.float32(number))):
        raise ValueError(f"column {column!r}: {value!r} is not finite")
    if kind == "int" and not -(2**63) <= number < 2**63:
        raise ValueError(f"column {column!r}: {value!r} has more than 64 bits")
    return number


def _numbers(embeddings: np.ndarray[Any, Any]) -> list[str]:
    """Each row as "0.5,-1e-7,...": the shortest texts that read as the same float32, by Arrow."""
    pa, compute = need("pyarrow", "bulk"), need("pyarrow.compute", "bulk")
    rows, dim = embeddings.shape
    texts = compute.cast(pa.array(np.ascontiguousarray(embeddings).reshape(-1)), pa.string())
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * dim)
    return cast("list[str]", compute.binary_join(pa.ListArray.from_arrays(offsets, texts), ",").to_pylist())


def _json_line(name: str, vector: str, options: Mapping[str, Any]) -> str:
    rest = json.dumps(options, ensure_ascii=False, separators=(",", ":"))[1:] if options else "}"
    return f'{{"id":{json.dumps(name, ensure_ascii=False)},"embedding":[{vector}]{"," if options else ""}{rest}\n'


def _csv_line(name: str, vector: str, options: Mapping[str, Any]) -> str:
    fields = [name, vector]
    if "crowding_tag" in options:
        fields.append(f"crowding_tag={options['crowding_tag']}")
    for item in options.get("restricts", ()):
        fields += [f"{item['namespace']}={value}" for value in item.get("allow", ())]
        fields += [f"{item['namespace']}=!{value}" for value in item.get("deny", ())]
    for item in options.get("numeric_restricts", ()):
        kind = next(key for key in item if key != "namespace")
        fields.append(f"#{item['namespace']}={item[kind]}{kind[6]}")
    return ",".join(fields) + "\n"


def _csv_text(value: str, what: str) -> None:
    """The page names no way to quote."""
    if found := next((c for c in value if c in ',"\r\n'), None):
        raise ValueError(f"{what} {value!r} holds {found!r}, which a CSV file of Vector Search cannot: use vertex-json")


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


class _AvroWriter:
    def __init__(self, file: Any) -> None:
        write = need("fastavro.write", "vertex")
        # The marker between blocks is random by default; a fixed one gives the same bytes for the same rows.
        self._writer = write.Writer(file, _AVRO, sync_marker=hashlib.blake2b(b"torch_towers", digest_size=16).digest())

    def write(
        self, names: Sequence[str], embeddings: np.ndarray[Any, Any], options: Sequence[Mapping[str, Any]]
    ) -> None:
        for name, vector, more in zip(names, embeddings.tolist(), options, strict=True):
            restricts = [{"allow": None, "deny": None, **item} for item in more.get("restricts", ())] or None
            self._writer.write(
                {
                    "id": name, "embedding": vector, "sparse_embedding": None, "restricts": restricts,
                    "numeric_restricts": more.get("numeric_restricts"), "crowding_tag": more.get("crowding_tag"),
                }
            )  # fmt: skip

    def flush(self) -> None:
        self._writer.flush()


# -- ids that stand twice -----------------------------------------------------------------------------------------------


def beside(path: Path, suffix: str) -> Path:
    """ "part.ids" -> "part.ids.txt"."""
    return path.with_name(path.name + suffix)


def repeated_id(folders: Sequence[Path], budget: int = 8 << 20) -> str | None:
    """An id that stands twice in the parts whose ids are at `folders` (without suffix), or None; `budget` hashes are held at a time.

    The hashes of each part are sorted, so a range of all of them can be looked at by itself.
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
    """The id that stands twice among those with this hash; None where different ids only share the hash."""
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
