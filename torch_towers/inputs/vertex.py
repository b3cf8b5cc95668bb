"""Documents of Vertex AI's Two-Tower algorithm: rows `{"data": "<JSON>", "key": ...}` as columns of features.

In a document every feature is a list: `{"user_id": ["1"], "ratings": [7.3, "6"]}`. Numbers may be strings. Features
that the tower does not take are ignored, since one document may serve both towers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch_towers.errors import InputError
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.values import short, value_reader

FIELDS = frozenset({"data", "key"})


def are_documents(inputs: Any, names: Sequence[str] | Mapping[str, Any]) -> bool:
    """Whether `inputs` are documents (rows or columns), for a tower with inputs of these names."""
    first: Any = inputs
    if isinstance(inputs, (list, tuple)) and inputs:
        first = cast("Sequence[Any]", inputs)[0]
    if "data" in names or not isinstance(first, Mapping):
        return False
    given = cast("Mapping[Any, Any]", first)
    return "data" in given and set(given) <= FIELDS


def columns_of(inputs: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The columns of `specs` from documents: rows of `{"data", "key"}`, or the two columns.

    A feature with one value per row becomes a scalar; one with a fixed number of values must have that many; one with
    any number is padded with zeros or empty strings to the longest row. Errors: `InputError` names the row and the
    feature.
    """
    if isinstance(inputs, Mapping):
        columns = cast(Mapping[str, Any], inputs)
        texts = list(columns["data"])
        keys = list(columns["key"]) if "key" in columns else None
    else:
        rows = cast("Sequence[Mapping[str, Any]]", inputs)
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping) or "data" not in row:  # type: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"row {index} is not a document: it needs the field 'data'")
        texts = [row["data"] for row in rows]
        keys = [row["key"] for row in rows] if rows and all("key" in row for row in rows) else None
    documents = [_document(text, index) for index, text in enumerate(texts)]
    found: dict[str, Any] = {}
    for name, spec in specs.items():
        if name == "key" and keys is not None:
            found[name] = keys
        elif any(name in document for document in documents):
            found[name] = _column([_values(document, spec, index) for index, document in enumerate(documents)], spec)
        elif not _width(spec):  # any number of values: default to none
            found[name] = _column([[] for _ in documents], spec)
    return found


def _document(text: Any, row: int) -> Mapping[str, Any]:
    if isinstance(text, (str, bytes)):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"row {row}: 'data' is not a JSON document: {error}") from error
    if not isinstance(text, Mapping):
        raise InputError(f"row {row}: 'data' must be a JSON object of features, not {type(text).__name__}")
    return cast("Mapping[str, Any]", text)


def _values(document: Mapping[str, Any], spec: TensorSpec, row: int) -> list[Any]:
    value = document.get(spec.name, [])
    values = cast("list[Any]", value if isinstance(value, list) else [value])
    read = value_reader(spec)
    try:
        return [read(_number(item)) if spec.dtype not in ("string", "bool") else read(item) for item in values]
    except ValueError as error:
        raise InputError(f"row {row}: feature {spec.name!r}: {error}") from error


def _number(value: Any) -> Any:
    """Python takes a truth value for an integer; a document that has one where a number belongs is wrong."""
    if isinstance(value, bool):
        raise ValueError(f"{short(value)} is not a number")
    return value


def _width(spec: TensorSpec) -> int | None:
    """The number of values per row: 1 for shape [batch], n for [batch, n], None if it may vary."""
    if spec.shape is None or len(spec.shape) > 2:
        raise InputError(f"feature {spec.name!r} has a shape that documents cannot represent: give columns")
    size = spec.shape[1] if len(spec.shape) == 2 else 1
    return size if isinstance(size, int) else None


def _column(rows: list[list[Any]], spec: TensorSpec) -> list[Any]:
    wanted = _width(spec)
    for index, row in enumerate(rows):
        if wanted is not None and len(row) != wanted:
            raise InputError(f"row {index}: feature {spec.name!r} has {len(row)} values; the tower takes {wanted}")
    if spec.shape is not None and len(spec.shape) == 1:
        return [row[0] for row in rows]
    width = max(map(len, rows), default=0)
    empty: Any = "" if spec.dtype == "string" else 0
    return [row + [empty] * (width - len(row)) for row in rows]
