"""Exports an encoder to ONNX or torch.export, after checking it in that runtime on the recorded samples."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
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
    """Writes the encoder of one tower to `target`, with dynamic batch and lengths. Returns what was compared and what
    is not exported.

    "onnx" is checked in ONNX Runtime, "pt2" (`torch.export`) after loading it again. `side` names the tower if there
    are two. Errors: `TorchTowersError` if the encoder cannot be captured, or gives other numbers there; nothing is
    written then.
    """
    require_new(target)
    tower, name, batches = chosen(checkpoint, side)
    program, fixed = _captured(tower, batches)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        beside = Path(scratch) / target.name
        run = _onnx(program, tower, beside) if kind == "onnx" else _pt2(program, beside)
        found = compare(name, _said_where_it_fails(run), batches)
        require(found, "the exported encoder")
        for file in Path(scratch).iterdir():  # weights beyond 2 GB are in a separate file
            os.replace(file, target.parent / file.name)
    return found, "; ".join(filter(None, (fixed, left_behind(tower))))


def chosen(checkpoint: Path, side: str | None) -> tuple[Tower, str, list[Batch]]:
    """The selected tower, its name, and its encoder's inputs and outputs for the samples, largest first. Errors:
    `InputError`."""
    towers = sides(load(checkpoint))
    if side is None and len(towers) > 1:
        raise InputError(f"{checkpoint} has two towers: choose one with --tower")
    name = side or next(iter(towers))
    if name not in towers:
        raise InputError(f"{checkpoint} has no {name} tower")
    batches = answered(towers[name], recorded_in(checkpoint).get(name, ()))
    if not batches:
        raise InputError(
            f"{checkpoint} has no recorded samples of the {name} tower to export it with: port it with samples"
        )
    return towers[name], name, sorted(batches, key=lambda batch: -_rows(batch[0]))


def _rows(given: Mapping[str, Any]) -> int:
    return max((len(value) for value in given.values() if isinstance(value, Tensor) and value.ndim), default=0)


def free_sizes(tower: Tower, example: Mapping[str, Any]) -> dict[str, Any]:
    """The `dynamic_shapes` of the encoder's inputs for `torch.export`: the batch, which must stay free, and lengths.

    torch fixes an axis whose example is 0 or 1 long, so the batch of such an example is not required to be free.
    """
    known, _ = layout(tower)
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
    return free


def _captured(tower: Tower, batches: Sequence[Batch]) -> tuple[Any, str]:
    """The encoder as captured by `torch.export`, with dynamic batch and lengths; a sentence that names sizes that stay fixed."""
    example = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batches[0][0].items()}
    free = free_sizes(tower, example)
    try:
        with torch.no_grad():
            program = torch.export.export(tower.encoder, (), kwargs=example, dynamic_shapes=free, strict=False)
    except Exception as error:  # torch may raise anything
        raise TorchTowersError(f"torch.export does not capture this encoder: {_first_line(error)}") from error
    return program, _fixed_sizes(program, free)


def _fixed_sizes(program: Any, free: Mapping[str, Any]) -> str:
    """Which sizes that are free in the encoder have one value in the program, since its code or its example has it."""
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes
              if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)}  # fmt: skip
    said: list[str] = []
    for spec in program.graph_signature.input_specs:
        axes = free.get(str(spec.arg.name), {})
        for axis in axes if isinstance(axes, dict) else ():  # type: ignore[reportUnknownVariableType]
            size = shapes[str(spec.arg.name)][axis]
            if isinstance(size, int):
                said.append(f"axis {axis} of {spec.arg.name} is always {size}")
    return ", ".join(said)


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
        given = [spec.name for spec in tower.encoder.graph.inputs]  # torch's own names are in lower case
        with _without_warning_of_torchvision():
            made = exporter.export(
                program, dynamo=True, input_names=given, output_names=names, verbose=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )  # fmt: skip
        made.save(path)
    except Exception as error:  # the exporter may raise anything
        raise TorchTowersError(f"this encoder cannot be exported to ONNX: {_missing_op(error)}") from error
    session: Any = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = [item.name for item in session.get_inputs()]

    def run(given: dict[str, Any]) -> Mapping[str, Any]:
        feed = {name: to_numpy(v) if isinstance(v, Tensor) else np.asarray(v, np.int64) for name, v in given.items()}
        return dict(zip(names, session.run(None, {name: feed[name] for name in wanted}), strict=True))

    return run


def _stable_sort(x: Any, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """`torch.sort(x, stable=True)`, which the exporter lacks: of equal values, ONNX's TopK gives the lower index first."""
    op: Any = need("onnxscript", "onnx").opset18
    size = op.Gather(op.Shape(x), [dim], axis=0)
    return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)


def _missing_op(error: BaseException) -> str:
    """The op that ONNX lacks, from the cause of the exporter's error; else its first line."""
    cause: BaseException | None = error
    while cause is not None:
        if found := re.search(
            r"No ONNX function found for <OpOverload\(op='([\w.]+)', overload='(\w+)'\)>", str(cause)
        ):
            return f"ONNX has no op for {found[1]}.{found[2]}"
        cause = cause.__cause__
    return _first_line(error)


@contextmanager
def _without_warning_of_torchvision() -> Generator[None]:
    """torch's exporter warns if torchvision is missing, whose ops no encoder has."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _said_where_it_fails(run: Runner) -> Runner:
    def called(given: dict[str, Any]) -> Mapping[str, Any]:
        try:
            return run(given)
        except Exception as error:  # the other runtime may raise anything
            raise TorchTowersError(f"the exported encoder does not run on a sample: {_first_line(error)}") from error

    return called


def left_behind(tower: Tower) -> str:
    """A sentence about the parts of the tower that the exported file lacks; empty if it is complete."""
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
    return f"its inputs are computed by the preprocessing, which stays in torch_towers: {', '.join(shown)}{more}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
