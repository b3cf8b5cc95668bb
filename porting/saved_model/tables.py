"""Lookup tables and their contents: from constants, from the checkpoint, or from a vocabulary file under TensorFlow's
rules.

Source: tensorflow/core/kernels/lookup_util.cc (TextFileLineIterator), tensorflow/core/lib/io/inputbuffer.cc (ReadLine),
tensorflow/core/kernels/lookup_table_op.{h,cc}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.calls import Site, data_inputs
from porting.saved_model.decode import decode_node
from porting.saved_model.dtypes import dtype_of
from porting.saved_model.files import check_asset, read_asset
from porting.saved_model.source import Source, check_object_id
from torch_towers.formats.text_lines import line_blocks
from torch_towers.graph.registry import Strings

TABLE_OPS = frozenset(
    f"{prefix}{kind}{suffix}"
    for prefix in ("", "Anonymous")
    for kind in ("HashTable", "MutableHashTable", "MutableDenseHashTable", "MutableHashTableOfTensors")
    for suffix in ("", "V2")
)
_FROM_FILE = "InitializeTableFromTextFile"
_FILLERS = ("LookupTableImport", "InitializeTable", _FROM_FILE, "LookupTableInsert", "InitializeTableFromDataset")
_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op", "table_initializer")

_LINE_NUMBER, _WHOLE_LINE = -1, -2
_SPACE = b" \t\n\v\f\r"
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_FLOAT = re.compile(
    rb"[+-]?(inf(inity)?|nan(\([0-9a-z_]*\))?|([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?)", re.IGNORECASE
)
_HEX_FLOAT = re.compile(rb"[+-]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(p[+-]?[0-9]+)?", re.IGNORECASE)


@dataclass(slots=True)
class Table:
    """A lookup table. `keys` and `values` are read lazily: arrays of equal length, unique keys, in insertion order.

    `file` is the asset that they come from, or None. A `mutable` table may change while TensorFlow runs; these are its
    initial contents. `reserved` are the keys that mark empty and deleted buckets of a dense table: looking one up is an
    error.
    """

    name: str
    key_dtype: str
    value_dtype: str
    file: Path | None
    mutable: bool
    _load: Callable[[], tuple[np.ndarray, np.ndarray]]
    _load_reserved: Callable[[], Mapping[str, np.ndarray]] = dict
    _contents: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def keys(self) -> np.ndarray:
        return self._read()[0]

    @property
    def values(self) -> np.ndarray:
        return self._read()[1]

    @property
    def reserved(self) -> Mapping[str, np.ndarray]:
        return self._load_reserved()

    def __len__(self) -> int:
        return len(self.keys)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if self._contents is None:
            self._contents = self._unique(*self._load())
        return self._contents

    def _unique(self, keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Deduplicates keys. A static table refuses a second value for a key, a mutable one keeps the last."""
        for array, dtype, what in ((keys, self.key_dtype, "keys"), (values, self.value_dtype, "values")):
            found = "string" if array.dtype == np.dtype(object) else array.dtype.name
            if found != dtype:
                raise CorruptModelError(f"table '{self.name}': its {what} are {found}, expected {dtype}")
        keys = keys.reshape(-1)
        is_rows = values.ndim > 1 and len(values) == len(keys) and values.size != len(keys)
        values = values if is_rows else values.reshape(-1)
        if len(keys) != len(values):
            raise CorruptModelError(
                f"table '{self.name}': {len(keys)} keys, expected as many as its {len(values)} values"
            )
        if not self.mutable and not len(keys):
            raise CorruptModelError(f"table '{self.name}': no keys, which TensorFlow refuses in a static table")
        places: dict[Any, int] = {}
        repeated = False
        for i, key in enumerate(keys.tolist()):
            first = places.setdefault(key, i)
            if first == i:
                continue
            repeated = True
            if not self.mutable and not np.array_equal(values[first], values[i]):
                raise CorruptModelError(
                    f"table '{self.name}': key {key!r} has value {values[first]!r} and again {values[i]!r}, which TensorFlow refuses"
                )
            places[key] = i
        if repeated:
            order = list(places.values())
            keys, values = keys[order], values[order]
        return keys, values


class Tables:
    """Every table of the graph and the library, in `by_key`. The key is the shared name, else the node name."""

    def __init__(self, source: Source) -> None:
        self._aliases = _aliases(source)
        fillers = _find_fillers(source)
        bodies = [
            ("", source.nodes.values()),
            *((name, function.node_def) for name, function in source.functions.items()),
        ]
        self.by_key: dict[str, Table] = {}
        for body, nodes in bodies:
            for node in nodes:
                if node.op in TABLE_OPS:
                    key = self.key(node.name, _shared_name(node), body)
                    if key not in self.by_key:
                        self.by_key[key] = _table(source, key, node, fillers.get(key, []))

    def key(self, node: str, shared_name: str, body: str) -> str:
        """The key of the table created by `node` of the main graph (`body` "") or of a function."""
        key = shared_name or (f"{body}/{node}" if body else node)
        return self._aliases.get(key, key)


def _shared_name(node: Any) -> str:
    return node.attr["shared_name"].s.decode("utf-8", "surrogateescape") if "shared_name" in node.attr else ""


def _aliases(source: Source) -> dict[str, str]:
    """A table without a shared name is created twice, by a node of the main graph and by its object's function:
    "function/node" -> node."""
    aliases: dict[str, str] = {}
    for name, index in source.captures():
        node = source.nodes.get(name)
        if node is None or node.op not in TABLE_OPS or _shared_name(node):
            continue
        check_object_id(index, source.objects, f"{source.path}: capture of node '{name}'")
        creator = source.creator(index, str(source.path))
        for made in source.functions[creator].node_def if creator is not None and creator in source.functions else ():
            if made.op in TABLE_OPS and not _shared_name(made):
                aliases[f"{creator}/{made.name}"] = name
    return aliases


def _find_fillers(source: Source) -> Mapping[str, list[Site]]:
    """The nodes that fill each table, by key: those that the restore op runs, then those that the init op runs."""
    meta = source.meta
    starts = [meta.saver_def.restore_op_name] if meta.saver_def.restore_op_name else []
    if _INIT_SIGNATURE in meta.signature_def:
        starts += [info.name for info in meta.signature_def[_INIT_SIGNATURE].outputs.values()]
    for name in _INIT_COLLECTIONS:
        if name in meta.collection_def:
            starts += list(meta.collection_def[name].node_list.value)
    fillers: dict[str, list[Site]] = {}
    for scope, node in source.bodies.reachable(source.main, starts):
        operands = data_inputs(node)
        if node.op.removesuffix("V2") not in _FILLERS or not operands:
            continue
        target = source.bodies.origin(scope, operands[0])
        if target.node is not None and target.node.op in TABLE_OPS:
            body = target.scope.body.name
            key = _shared_name(target.node) or (f"{body}/{target.node.name}" if body else target.node.name)
            fillers.setdefault(key, []).append(Site(scope, node, "", node.name))
    return fillers


def _table(source: Source, key: str, node: Any, fillers: list[Site]) -> Table:
    where = f"{source.path}: table '{key}'"
    key_dtype, value_dtype = (
        dtype_of(node.attr[name].type, where).name if name in node.attr else "" for name in ("key_dtype", "value_dtype")
    )
    mutable = "Mutable" in node.op
    # A static table ignores everything after its first initializer; an import replaces the contents of a mutable one.
    filler = (fillers[-1] if mutable else fillers[0]) if fillers else None
    op = filler.node.op.removesuffix("V2") if filler is not None else ""
    asset = _asset_of(source, filler) if filler is not None and op == _FROM_FILE else None

    def reserved() -> Mapping[str, np.ndarray]:
        operands = zip(("empty_key", "deleted_key"), data_inputs(node), strict=False) if "Dense" in node.op else ()
        return {name: source.constants.value(source.main, operand) for name, operand in operands}

    def load() -> tuple[np.ndarray, np.ndarray]:
        if filler is None:
            why = (
                "nothing in the model fills this mutable table, so its contents are unknown"
                if mutable
                else "no initializer fills it"
            )
            raise PortingError(f"{where}: {why}")
        operands = data_inputs(filler.node)
        if op == _FROM_FILE:
            if asset is None:
                raise PortingError(
                    f"{where}: its vocabulary file is not an asset of the SavedModel, so it cannot be read"
                )
            form = _form(decode_node(filler.node, str(source.path)).attrs, where)
            return read_text_file(check_asset(source.path, asset), form, key_dtype, value_dtype)
        if op not in ("LookupTableImport", "InitializeTable") or len(operands) != 3:
            raise PortingError(
                f"{where}: filled by {filler.node.op} with {len(operands)} operands, which is not supported"
            )
        keys, values = (source.constants.value(filler.scope, operand) for operand in operands[1:])
        if "Dense" not in node.op:
            return keys, values
        # A dense table also saves its empty buckets.
        others = reserved().values()
        keep = np.array([all(key != other for other in others) for key in keys.reshape(-1)], bool)
        return keys.reshape(-1)[keep], values.reshape(len(keep), -1)[keep]

    file = None if asset is None else source.path / "assets" / asset
    return Table(key, key_dtype, value_dtype, file, mutable, load, reserved)


def _asset_of(source: Source, site: Site) -> str | None:
    operands = data_inputs(site.node)
    origin = source.bodies.origin(site.scope, operands[1]).node if len(operands) > 1 else None
    if origin is None or "asset" not in origin.attr:
        return None
    return origin.attr["asset"].s.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class TextFile:
    """The attributes of InitializeTableFromTextFileV2. Index -1 is the line number, -2 the whole line."""

    key_index: int
    value_index: int
    vocab_size: int = -1
    delimiter: bytes = b"\t"
    offset: int = 0


def _form(attrs: Mapping[str, Any], where: str) -> TextFile:
    numbers = {
        name: attrs.get(name, default)
        for name, default in (("key_index", None), ("value_index", None), ("vocab_size", -1), ("offset", 0))
    }
    delimiter = attrs.get("delimiter", b"\t")
    if (
        not all(isinstance(number, int) and number >= -2 for number in numbers.values())
        or not isinstance(delimiter, bytes)
        or len(delimiter) != 1
    ):
        raise CorruptModelError(
            f"{where}: attributes {numbers} and delimiter {delimiter!r}, expected integers from -2 up and one byte"
        )
    return TextFile(delimiter=delimiter, **numbers)


def read_text_file(path: Path, form: TextFile, key_dtype: str, value_dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(keys, values) of a vocabulary file. Raises CorruptModelError if TensorFlow refuses the file."""
    lines = _lines(path, read_asset(path), form.vocab_size)
    return _column(path, lines, form.key_index, form, key_dtype), _column(
        path, lines, form.value_index, form, value_dtype
    )


def _lines(path: Path, data: bytes, count: int) -> Strings:
    """The first `count` lines (-1: all) without the carriage returns at their ends; an empty last line is ignored."""
    found = data.count(b"\n") + (data[data.rfind(b"\n") + 1 :] not in (b"", b"\r"))
    if found < count:
        raise CorruptModelError(f"{path}: {found} lines, expected {count} (vocab_size)")
    lines, done = np.empty(found if count == -1 else count, object), 0
    if not len(lines):
        raise CorruptModelError(f"{path}: no lines, which TensorFlow refuses")
    for block in line_blocks(data):
        some = [line.removesuffix(b"\r") for line in block.split(b"\n")][: len(lines) - done]
        if b"" in some:
            raise CorruptModelError(f"{path}: line {done + some.index(b'') + 1} is empty, which TensorFlow refuses")
        lines[done : done + len(some)] = some
        done += len(some)
    return lines


def _column(path: Path, lines: Strings, index: int, form: TextFile, dtype: str) -> np.ndarray:
    if index == _LINE_NUMBER:
        if dtype != "int64":
            raise CorruptModelError(f"{path}: line numbers as {dtype}, expected int64")
        return np.arange(form.offset, form.offset + len(lines), dtype=np.int64)
    tokens = lines
    if index != _WHOLE_LINE:
        tokens = np.empty(len(lines), object)
        for i, line in enumerate(lines):
            row = line.split(form.delimiter, min(index + 1, len(line)))
            if len(row) <= index:
                raise CorruptModelError(f"{path}: line {i + 1} has {len(row)} columns, expected more than {index}")
            tokens[i] = row[index]
    if dtype == "string":
        return tokens
    parsers: dict[str, Callable[[bytes], float]] = {
        "int32": _integer,
        "int64": _integer,
        "float32": _float32,
        "float64": _float64,
    }
    if dtype not in parsers:
        raise CorruptModelError(f"{path}: a column of dtype {dtype}, which TensorFlow does not read from a file")
    try:
        return np.array([parsers[dtype](token.strip(_SPACE)) for token in tokens], np.dtype(dtype))
    except (ValueError, OverflowError) as error:
        raise CorruptModelError(f"{path}: a field is not a valid {dtype} ({error})") from error


def _integer(token: bytes) -> int:
    if not _INTEGER.fullmatch(token):
        raise ValueError(token)
    return int(token)


def _float64(token: bytes) -> float:
    if _HEX_FLOAT.fullmatch(token):
        return float.fromhex(token.decode())
    if not _FLOAT.fullmatch(token):
        raise ValueError(token)
    return float(token.partition(b"(")[0])


def _float32(token: bytes) -> float:
    """Parses a float32 with a single rounding: for ties between two floats, the decimal decides."""
    double = _float64(token)
    with np.errstate(over="ignore"):
        single = np.float32(double)
    if not np.isfinite(single) or float(single) == double or _HEX_FLOAT.fullmatch(token):
        return float(single)
    other = np.nextafter(single, np.float32(np.inf if double > float(single) else -np.inf))
    exact, low, high = Fraction(token.decode()), *sorted((Fraction(float(single)), Fraction(float(other))))
    middle = (low + high) / 2
    return float(single) if Fraction(double) != middle or exact == middle else float(high if exact > middle else low)
