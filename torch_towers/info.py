"""The summary of a checkpoint: `torch-towers info`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from torch_towers.checkpoint.checkpoint import CONFIG
from torch_towers.graph.graph import TensorSpec
from torch_towers.tower import Tower
from torch_towers.two_tower import TwoTower


def info(path: str | os.PathLike[str], towers: TwoTower) -> dict[str, Any]:
    """The summary as plain data."""
    folder = Path(path)
    parity = recorded_parity(folder)
    sides = {"query": towers.query, "candidate": towers.candidate}
    return {
        "path": str(folder),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "similarity": towers.similarity_function,
        "source": towers.source,
        "towers": {
            name: _tower(tower, cast("dict[str, Any] | None", parity.get(name)))
            for name, tower in sides.items()
            if tower
        },
        "config_version": json.loads((folder / CONFIG).read_bytes())["version"],
    }


def recorded_parity(folder: Path) -> dict[str, Any]:
    """parity.json, or an empty dict."""
    try:
        found = json.loads((folder / "parity.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _tower(tower: Tower, parity: dict[str, Any] | None) -> dict[str, Any]:
    weights = list(tower.encoder.parameters())
    return {
        "inputs": [_spec(spec) for spec in tower.inputs],
        "optional": sorted(tower.defaults),
        "outputs": [_spec(spec) for spec in tower.outputs],
        "embedding": tower.spec.embedding,
        "parameters": sum(weight.numel() for weight in weights),
        "parity": None if parity is None else {key: parity.get(key) for key in ("compared_with", "rows", "passed")},
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}


def info_lines(found: dict[str, Any]) -> list[str]:
    """The summary as text."""
    lines = [f"{found['path']}: {found['bytes'] / 1e6:,.1f} MB, similarity {found['similarity']}"]
    for name, tower in found["towers"].items():
        source = found["source"].get(name)
        lines.append(f"{name}: {tower['parameters']:,} trained values" + (f", from {_from(source)}" if source else ""))
        for title in ("inputs", "outputs"):
            lines.append(f"  {title:<8} " + ", ".join(_shown(spec, tower) for spec in tower[title]))
        parity = tower["parity"]
        if parity and parity["compared_with"]:
            equal = "equal" if parity["passed"] else "NOT equal"
            compared = (
                "not compared"
                if parity["compared_with"] == "nothing"
                else f"{equal} to {parity['compared_with']} on {parity['rows']} rows"
            )
            lines.append(f"  parity   {compared}")
    return lines


def _from(source: Any) -> str:
    if not isinstance(source, dict):
        return str(source)
    fields = cast("dict[str, Any]", source)
    version = f" (TensorFlow {fields['tensorflow_version']})" if fields.get("tensorflow_version") else ""
    return f"{fields.get('saved_model')}, {fields.get('entry')}{version}"


def _shown(spec: dict[str, Any], tower: dict[str, Any]) -> str:
    sizes = "..." if spec["shape"] is None else ", ".join("?" if size is None else str(size) for size in spec["shape"])
    default = " (optional)" if spec["name"] in tower["optional"] else ""
    return f"{spec['name']} {spec['dtype']} [{sizes}]{default}"
