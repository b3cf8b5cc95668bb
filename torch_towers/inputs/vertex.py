"""Documents of Vertex AI's Two-Tower algorithm: rows `{"data": "<JSON>", "key": ...}` as columns of features.

In a document every feature is a list: `{"user_id": ["1"], "ratings": [7.3, "6"]}`. Numbers may be written as strings; features that the
tower does not take are left out, as they may stand in one document for both towers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch_towers.errors import InputError
from torch_towers.graph.graph import TensorSpec

FIELDS = frozenset({"data", "key"})


def are_documents(inputs: Any, names: Sequence[str] | Mapping[str, Any]) -> bool:
    """Whether `inputs` are rows or columns of documents, for a tower whose inputs have these names."""
    first: Any = inputs
    if isinstance(inputs, (list, tuple)) and inputs:
        first = cast("Sequence[Any]", inputs)[0]
    if "data" in names or not isinstance(first, Mapping):
        return False
    given = cast("Mapping[Any, Any]", first)
    return "data" in given and set(given) <= FIELDS


def columns_of(inputs: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The columns of `specs` from documents: rows of `{"data", "key"}`, or the two columns.

    A feature of one value per row is that value, one of a fixed number must have as many, one of any number is padded with zeros or
    empty strings to the longest row. Errors: `InputError` names the row and the feature.
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
        elif not _width(spec):  # any number of values: none
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
    return [_value(item, spec, row) for item in values]


def _value(value: Any, spec: TensorSpec, row: int) -> Any:
    where = f"row {row}: feature {spec.name!r}"
    if spec.dtype == "string":
        if not isinstance(value, str):
            raise InputError(f"{where}: expected strings, found {json.dumps(value)}")
        return value
    if isinstance(value, str):
        try:
            value = float(value) if spec.dtype.startswith(("float", "bfloat")) else int(value)
        except ValueError as error:
            raise InputError(f"{where}: {value!r} is not a number") from error
    if not isinstance(value, (int, float)) or isinstance(value, bool) != (spec.dtype == "bool"):
        raise InputError(f"{where}: expected numbers, found {json.dumps(value)}")
    return value


def _width(spec: TensorSpec) -> int | None:
    """How many values a row has: 1 of shape [batch], n of [batch, n], None where it may be any number."""
    if spec.shape is None or len(spec.shape) > 2:
        raise InputError(f"feature {spec.name!r} has another shape than the features of a document: give columns")
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
