"""Imports trained weights from a user's own file into the checkpoint, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # type: ignore[reportUnknownVariableType]
from torch import Tensor

from torch_towers.checkpoint.checkpoint import CONFIG, MAX_CONFIG
from torch_towers.checkpoint.replacing import opened
from torch_towers.checkpoint.weights import parse_json
from torch_towers.errors import InputError
from torch_towers.parity.verify import sides
from torch_towers.program.program import walk
from torch_towers.source.module import source_of
from torch_towers.two_tower import TwoTower, load


def import_weights(checkpoint: Path, file: Path) -> tuple[int, list[str]]:
    """Imports the tensors of a safetensors file into the checkpoint. Returns how many changed, and the weights missing
    in the file.

    Names are the checkpoint's ("query.dense.weight"), or those of the file that `torch-towers source` writes. The
    checkpoint is replaced atomically. Errors: `InputError` for a name, shape or dtype that does not match the
    checkpoint, and for a changed constant; `CheckpointError`. Nothing is written then.
    """
    towers = load(checkpoint)
    held, constants = _held(checkpoint, towers)
    given = _read(file)
    if given.keys() - held.keys():
        names = source_of(checkpoint).names
        given = {_stored(name, names): value for name, value in given.items()}
    if not given:
        raise InputError(f"{file} holds no tensors")
    changed = 0
    for name, value in given.items():
        if name not in held:
            near = difflib.get_close_matches(name, held, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"{file}: {name!r} is not a weight of {checkpoint}{hint}")
        old = held[name]
        if value.shape != old.shape or value.dtype != old.dtype:
            raise InputError(
                f"{file}: {name!r} is {value.dtype} {list(value.shape)}, but {checkpoint} has {old.dtype} {list(old.shape)}"
            )
        equal = torch.equal(value, old)
        if name in constants and not equal:
            raise InputError(f"{file}: {name!r} is a constant of the graph, which must not change")
        changed += not equal
    with torch.no_grad():
        for name, value in given.items():
            held[name].copy_(value)
    towers.save(checkpoint)
    return changed, sorted(held.keys() - given.keys() - constants)


def _held(checkpoint: Path, towers: TwoTower) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of the encoders by their names in the checkpoint, and the names of constants among them."""
    config = parse_json(opened(checkpoint, lambda one: one.read(CONFIG, MAX_CONFIG)), CONFIG)
    held: dict[str, Tensor] = {}
    constants: set[str] = set()
    for side, tower in sides(towers).items():
        shared: Mapping[str, str] = config["towers"][side]["shared"]
        keys = {name: shared.get(name, f"{side}.{name}") for name in tower.encoder.tensors()}
        held |= {keys[name]: value for name, value in tower.encoder.tensors().items()}
        constants |= {keys[str(node.attrs["tensor"])] for node in walk(tower.encoder.graph) if node.op == "constant"}
    return held, constants


def _stored(name: str, names: Mapping[str, str]) -> str:
    """The checkpoint's name of a weight of the generated file."""
    for ours, theirs in names.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors: {error}") from error
