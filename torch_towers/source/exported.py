"""Exported: an encoder as a file for another runtime, ONNX or torch's own, checked there on the recorded samples before it is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError, TorchTowersError
from torch_towers.extras import need
from torch_towers.formats.npz import to_numpy
from torch_towers.graph.registry import MODULES, OPS
from torch_towers.inputs.reader import BATCH
from torch_towers.parity.verify import recorded_in, sides
from torch_towers.source.check import Batch, Compared, Runner, answered, compare, require, require_new
from torch_towers.source.layout import UNKNOWN, layout
from torch_towers.tower import Tower
from torch_towers.two_tower import load

Format = Literal["onnx", "pt2"]


def export(checkpoint: Path, target: Path, kind: Format, side: str | None = None) -> tuple[list[Compared], str]:
    """Writes the encoder of one tower to `target`, with a free batch and free lengths: what was compared, and what stays behind.

    "onnx" is checked in ONNX Runtime, "pt2" (`torch.export`) as it is loaded again. `side` names the tower where there are two.
    Errors: `TorchTowersError` where the encoder cannot be captured, or gives other numbers there: nothing is written then.
    """
    require_new(target)
    tower, name, batches = chosen(checkpoint, side)
    program = _captured(tower, batches)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        beside = Path(scratch) / target.name
        run = _onnx(program, tower, beside) if kind == "onnx" else _pt2(program, beside)
        found = compare(name, _said_where_it_fails(run), batches)
        require(found, "the exported encoder")
        for file in Path(scratch).iterdir():  # weights beyond 2 GB stand in a file beside
            os.replace(file, target.parent / file.name)
    return found, left_behind(tower)


def chosen(checkpoint: Path, side: str | None) -> tuple[Tower, str, list[Batch]]:
    """The tower that is meant, its name, and what its encoder takes and gives for the samples, most rows first. Errors: `InputError`."""
    towers = sides(load(checkpoint))
    if side is None and len(towers) > 1:
        raise InputError(f"{checkpoint} has two towers: say which one with --tower")
    name = side or next(iter(towers))
    if name not in towers:
        raise InputError(f"{checkpoint} has no {name} tower")
    batches = answered(towers[name], recorded_in(checkpoint).get(name, ()))
    if not batches:
        raise InputError(f"{checkpoint} holds no samples of the {name} tower to export it with: port it with them")
    return towers[name], name, sorted(batches, key=lambda batch: -_rows(batch[0]))


def _rows(given: Mapping[str, Any]) -> int:
    return max((len(value) for value in given.values() if isinstance(value, Tensor) and value.ndim), default=0)


def _captured(tower: Tower, batches: Sequence[Batch]) -> Any:
    """The encoder as `torch.export` captures it, its batch and its free lengths free."""
    known, _ = layout(tower)
    example = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batches[0][0].items()}
    free: dict[str, Any] = {}
    for name, value in example.items():
        dims = known.get(name, UNKNOWN).dims if isinstance(value, Tensor) else None
        if not isinstance(value, Tensor):
            free[name] = torch.export.Dim.AUTO
            continue
        free[name] = {
            axis: torch.export.Dim.DYNAMIC if dim == BATCH and size > 1 else torch.export.Dim.AUTO
            for axis, (dim, size) in enumerate(zip(dims or (None,) * value.ndim, value.shape, strict=True))
            if not isinstance(dim, int)
        }
    try:
        with torch.no_grad():
            return torch.export.export(tower.encoder, (), kwargs=example, dynamic_shapes=free, strict=False)
    except Exception as error:  # torch raises what it finds
        raise TorchTowersError(f"torch.export does not capture this encoder: {_first_line(error)}") from error


def _pt2(program: Any, path: Path) -> Runner:
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    def run(given: dict[str, Any]) -> Mapping[str, Any]:
        with torch.no_grad():
            return module(**given)

    return run


def _onnx(program: Any, tower: Tower, path: Path) -> Runner:
    need("onnxscript", "onnx")
    runtime = need("onnxruntime", "onnx")
    names = list(tower.encoder.graph.outputs)
    try:
        exporter: Any = torch.onnx
        made = exporter.export(program, dynamo=True, output_names=names, verbose=False)
        made.save(path)
    except Exception as error:  # the exporter raises what it finds
        raise TorchTowersError(f"ONNX has no words for this encoder: {_first_line(error)}") from error
    session: Any = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = [item.name for item in session.get_inputs()]

    def run(given: dict[str, Any]) -> Mapping[str, Any]:
        feed = {name: to_numpy(v) if isinstance(v, Tensor) else np.asarray(v, np.int64) for name, v in given.items()}
        return dict(zip(names, session.run(None, {name: feed[name] for name in wanted}), strict=True))

    return run


def _said_where_it_fails(run: Runner) -> Runner:
    def called(given: dict[str, Any]) -> Mapping[str, Any]:
        try:
            return run(given)
        except Exception as error:  # the other runtime raises what it finds
            raise TorchTowersError(f"the exported encoder does not run on a sample: {_first_line(error)}") from error

    return called


def left_behind(tower: Tower) -> str:
    """What of the tower the exported file does not hold, in a sentence; nothing where it holds all."""
    kinds: dict[str, None] = {}
    for part, program in tower.parts.items():
        for node in program.graph.nodes if part != "encoder" else ():
            kind = program.graph.modules[str(node.attrs["module"])].type if node.op == "module" else node.op
            entry = OPS.get(kind) or MODULES.get(kind)
            if entry is not None and entry.stage != "tensor":
                kinds[kind] = None
    if not kinds:
        return ""
    shown = [*kinds][:8]
    more = f" and {len(kinds) - len(shown)} more" if len(kinds) > len(shown) else ""
    return f"it takes what the preprocessing gives, which stays with torch_towers: {', '.join(shown)}{more}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
