"""Lookup tables: a table that several nodes use is one module of the checkpoint."""

from __future__ import annotations

import re
from typing import Any

import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant, Resource, constant
from porting.errors import PortingError

Emit = ConvertingEmitter

_LOOKUPS = re.compile(r"(None|hash_table|table)_[Ll]ookup|LookupTableFind")
_KINDS = ("HashTable", "MutableHashTable", "MutableHashTableOfTensors", "MutableDenseHashTable")
_HANDLES = {prefix + kind + version for kind in _KINDS for prefix, version in (("", ""), ("", "V2"), ("Anonymous", ""))}
_HANDLES.remove("MutableDenseHashTable")  # TensorFlow's own kernel is broken


@converter(
    *_HANDLES,
    ignores=(
        "key_dtype",
        "value_dtype",
        "value_shape",
        "use_node_name_sharing",
        "initial_num_buckets",
        "max_load_factor",
    ),
)
def handle(t: Emit, *unused: Any, table: str) -> Resource:
    return Resource("table", table)


@converter("LookupTableFindV2", "LookupTableFind")
def find(t: Emit, table: Resource, keys: Any, default: Any) -> Any:
    name = t.context.tables.get(_key(t, table))
    found = t.context.model.tables[table.key]
    if getattr(default, "shape", None) and not found.mutable:
        raise PortingError(
            f"{t.scope!r}: a static table takes one default for all keys, found one of shape {list(default.shape)}"
        )
    if name is None:
        name = t.context.tables[table.key] = t.names(_name(t.place))
    keys, default = t.tensor(keys), t.tensor(default)
    for what, given, dtype in (("keys", keys, found.key_dtype), ("values", default, found.value_dtype)):
        if given.dtype != dtype:
            raise PortingError(
                f"{t.scope!r} has {what} of {given.dtype}, and those of table '{found.name}' are {dtype}"
            )
    for what, key in found.reserved.items():
        is_usable = t.reshape(t.not_equal(keys, constant(_tensor(key))), -1)
        t.check(
            t.reduce_all(is_usable, axes=(0,)), constant(f"Using the {what} as a table key is not allowed".encode())
        )
    args: dict[str, Any] = {**vocabulary(t, table, name)}
    if found.mutable and found.values.ndim == 1:
        args["default_per_key"] = True
    return t.module("LookupTable", name, args, keys, default)


@converter("LookupTableSizeV2", "LookupTableSize")
def size(t: Emit, table: Resource) -> Constant:
    """Constant: a table does not change while a tower is served."""
    found = t.context.model.tables[_key(t, table)]
    return constant(torch.tensor(len(set(found.keys.tolist())), dtype=torch.int64))


@converter("LookupTableExportV2", "LookupTableExport", outputs=("keys", "values"), ignores=("Tkeys", "Tvalues"))
def export(t: Emit, table: Resource) -> tuple[Constant, Constant]:
    found = t.context.model.tables[_key(t, table)]
    return constant(_tensor(found.keys)), constant(_tensor(found.values))


def _key(t: Emit, table: Any) -> str:
    if not isinstance(table, Resource) or table.kind != "table":
        raise PortingError(f"{t.scope!r} reads a table that is known only at run time")
    return table.key


def _name(scope: str) -> str:
    """The table's name in a scope: `"string_lookup.None_Lookup.LookupTableFindV2"` -> `"string_lookup"`."""
    parts = scope.split(".")
    while len(parts) > 1 and _LOOKUPS.match(parts[-1]):
        parts.pop()
    return ".".join(parts)


def vocabulary(t: Emit, table: Resource, name: str = "") -> dict[str, str]:
    """The names of the table's keys and values in the store, added once: they become the checkpoint's vocabulary
    files."""
    key = f"{_key(t, table)} vocabulary"
    if key not in t.context.tables:
        found = t.context.model.tables[table.key]
        names = [t.names(f"{name or _name(t.place)}.{part}") for part in ("keys", "values")]
        t.context.tables[key] = " ".join(names)
        t.store.update(zip(names, map(_tensor, (found.keys, found.values)), strict=True))
    return dict(zip(("keys", "values"), t.context.tables[key].split(), strict=True))


def _tensor(array: Any) -> Any:
    return array if array.dtype == object else torch.from_numpy(array.copy())
