"""`--inspect`: the contents of a SavedModel, and whether it would port. Works on any SavedModel, whatever its ops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from porting import converters as _converters  # noqa: F401  (fills CONVERTERS)
from porting.conversion.convert import all_nodes
from porting.flat_graph.flatten import flatten
from porting.registry import CONVERTERS
from porting.saved_model import SavedModel
from torch_towers.errors import TorchTowersError
from torch_towers.graph.graph import TensorSpec


def inspect(model: SavedModel) -> dict[str, Any]:
    """Signatures and functions with inputs and outputs, variables, tables, assets, and ops with whether each is
    supported."""
    return {
        "path": str(model.path),
        "tags": list(model.tags),
        "tag_sets": [list(tags) for tags in model.tag_sets],
        "tensorflow_version": model.tensorflow_version,
        "signatures": {
            name: {"inputs": _specs(signature.inputs), "outputs": _specs(signature.outputs), "method": signature.method_name}
            for name, signature in model.signatures.items()
        },
        "functions": [entry for entry in model.entries() if entry not in model.signatures],
        "variables": [
            {"name": v.name, "dtype": v.dtype, "shape": list(v.shape), "trainable": v.trainable, "checkpoint_key": v.checkpoint_key}
            for v in model.variables.values()
        ],
        "tables": [_table(model, key) for key in model.tables],
        "ops": {entry: _ops(model, entry) for entry in model.signatures or model.entries()[:1]},
    }  # fmt: skip


def _specs(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    return {
        name: {"dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}
        for name, spec in specs.items()
    }


def _table(model: SavedModel, key: str) -> dict[str, Any]:
    table = model.tables[key]
    described: dict[str, Any] = {
        "name": key,
        "key_dtype": table.key_dtype,
        "value_dtype": table.value_dtype,
        "file": str(table.file) if table.file else None,
    }
    try:
        return {**described, "size": len(table.keys)}
    except TorchTowersError as error:
        return {**described, "error": str(error)}


def _ops(model: SavedModel, entry: str) -> dict[str, Any]:
    try:
        nodes = all_nodes(flatten(model.graph(entry), model.functions), model.functions)
    except TorchTowersError as error:
        return {"error": str(error)}
    counts = Counter(node.op for node in nodes)
    return {op: {"count": count, "supported": op in CONVERTERS} for op, count in sorted(counts.items())}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The result as lines of text."""
    text = [f"{found['path']}  (TensorFlow {found['tensorflow_version'] or 'unknown'}, tags {_join(found['tags'])})"]
    if len(found["tag_sets"]) > 1:
        text.append(f"  meta graphs: {'; '.join(_join(tags) for tags in found['tag_sets'])}")
    for name, signature in found["signatures"].items():
        text.append(f"signature {name}")
        text += [f"  in   {line}" for line in _spec_lines(signature["inputs"])]
        text += [f"  out  {line}" for line in _spec_lines(signature["outputs"])]
    if found["functions"]:
        text.append(f"functions  {', '.join(found['functions'])}")
    text += _variable_lines(found["variables"])
    for table in found["tables"]:
        size = f"{table['size']} entries" if "size" in table else table["error"]
        origin = f", from {table['file']}" if table["file"] else ""
        text.append(f"table  {table['name']}: {table['key_dtype']} -> {table['value_dtype']}, {size}{origin}")
    for entry, ops in found["ops"].items():
        text += _op_lines(entry, ops)
    return text


def _join(items: list[str]) -> str:
    return ", ".join(items) or "(none)"


def _spec_lines(specs: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {spec['dtype']} {_shape(spec['shape'])}" for name, spec in specs.items()]


def _shape(shape: list[int | None] | None) -> str:
    return (
        "of any shape" if shape is None else "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
    )


def _variable_lines(variables: list[dict[str, Any]]) -> list[str]:
    width = max((len(variable["name"]) for variable in variables), default=0)
    text = [f"{len(variables)} variables"] if variables else []
    for variable in variables:
        frozen = "" if variable["trainable"] else "  (not trainable)"
        text.append(f"  {variable['name']:<{width}}  {variable['dtype']} {_shape(variable['shape'])}{frozen}")
    return text


def _op_lines(entry: str, ops: Mapping[str, Any]) -> list[str]:
    if "error" in ops:
        return [f"ops of {entry}: {ops['error']}"]
    missing = [f"{op} (x{found['count']})" for op, found in ops.items() if not found["supported"]]
    listed = ", ".join(f"{op} x{found['count']}" for op, found in ops.items())
    verdict = f"not supported: {', '.join(missing)}" if missing else "all supported"
    return [f"ops of {entry}: {verdict}", f"  {listed}"]
