"""The samples on which a port was compared, recorded with TensorFlow's answers, to repeat the comparison anywhere.

In a `.npz` file the arrays of one batch are named `<tower>|<number>|in|<input>`, `...|out|<output>` and
`...|ids|<value>`; `...|kind` is text, and `...|refusal` is TensorFlow's message if it refused the batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from torch_towers.errors import CheckpointError
from torch_towers.formats.byte_strings import string
from torch_towers.formats.npz import load_arrays, pack_arrays

Arrays = Mapping[str, np.ndarray[Any, Any]]
KEPT = 1 << 20  # maximum bytes of all recorded batches before compression
_PARTS = ("in", "out", "ids")
_NAME = re.compile(r"(?P<tower>.+?)\|(?P<number>\d{1,9})\|(?P<rest>(?:in|out|ids)\|.*|kind|refusal)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One batch: its inputs and TensorFlow's answer.

    `outputs` are TensorFlow's outputs by name, or its message if it refused the batch. `ids` are the ids, masks and
    strings inside the tower, by their names in `preprocess`. `kind` is "domain" for typical inputs, "edge" for inputs
    at the limits.
    """

    inputs: Arrays
    outputs: Arrays | str
    ids: Arrays = field(default_factory=dict[str, Any])
    kind: str = "domain"


def kept(batches: Sequence[Recorded], limit: int = KEPT) -> list[Recorded]:
    """As many batches as fit in `limit` bytes, the first of each kind before all others."""
    firsts = [next(iter(_of_kind(batches, kind)), None) for kind in dict.fromkeys(batch.kind for batch in batches)]
    chosen: list[Recorded] = []
    free = limit
    for batch in (*filter(None, firsts), *batches):
        size = _bytes(batch)
        if size <= free and not any(batch is other for other in chosen):
            chosen.append(batch)
            free -= size
    return [batch for batch in batches if any(batch is other for other in chosen)]


def _of_kind(batches: Sequence[Recorded], kind: str) -> list[Recorded]:
    return [batch for batch in batches if batch.kind == kind]


def _bytes(batch: Recorded) -> int:
    return sum(map(_size, (*batch.inputs.values(), *_answers(batch).values(), *batch.ids.values())))


def _answers(batch: Recorded) -> Arrays:
    none: Arrays = {}
    return none if isinstance(batch.outputs, str) else batch.outputs


def _size(array: np.ndarray[Any, Any]) -> int:
    return sum(map(len, array.reshape(-1).tolist())) + 8 * array.size if array.dtype == object else array.nbytes


def pack(towers: Mapping[str, Iterable[Recorded]]) -> bytes:
    """A file of recorded batches, by tower (or by signature)."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for tower, batches in towers.items():
        for number, batch in enumerate(batches):
            prefix = f"{tower}|{number}|"
            arrays[prefix + "kind"] = string(batch.kind.encode())
            if isinstance(batch.outputs, str):
                arrays[prefix + "refusal"] = string(batch.outputs.encode())
            for part, values in zip(_PARTS, (batch.inputs, _answers(batch), batch.ids), strict=True):
                arrays |= {f"{prefix}{part}|{name}": array for name, array in values.items()}
    return pack_arrays(arrays)


def unpack(path: Path, data: bytes | None = None) -> dict[str, list[Recorded]]:
    """The recorded batches of the file `path` (with content `data`, if already read), by tower.

    Errors: `CheckpointError`.
    """
    return batches_of(load_arrays(path, data, 64 * KEPT), path)


def batches_of(arrays: Arrays, path: Path) -> dict[str, list[Recorded]]:
    """The recorded batches in the arrays of the file `path`, by tower (or by signature). Errors: `CheckpointError`."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name, array in arrays.items():
        tower, number, rest = _parts(path, name)
        found.setdefault(tower, {}).setdefault(number, {})[rest] = array
    return {tower: [_batch(path, parts) for _, parts in sorted(numbers.items())] for tower, numbers in found.items()}


def _parts(path: Path, name: str) -> tuple[str, int, str]:
    """Tower, number and remainder of an array's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{path}: {name!r} does not name an array of a recorded batch")
    return match["tower"], int(match["number"]), match["rest"]


def _batch(path: Path, parts: Mapping[str, np.ndarray[Any, Any]]) -> Recorded:
    named: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    words: dict[str, str] = {}
    for name, array in parts.items():
        part, _, value = name.partition("|")
        if part in named:
            named[part][value] = array
        elif array.dtype == object and array.ndim == 0:
            words[part] = array.item().decode("utf-8", "replace")
        else:
            raise CheckpointError(f"{path}: {name!r} must be a single text")
    return Recorded(named["in"], words.get("refusal", named["out"]), named["ids"], words.get("kind", "domain"))


def is_recorded(arrays: Mapping[str, Any]) -> bool:
    """Whether a file's arrays are recorded batches, not one batch of a signature in the format of `of_reference`."""
    return any(name.endswith("|kind") and _NAME.fullmatch(name) for name in arrays)


def of_reference(
    arrays: Mapping[str, np.ndarray[Any, Any]], entry: str, inputs: Sequence[str], outputs: Sequence[str]
) -> list[Recorded]:
    """The one batch of a signature in arrays named `<signature>|in|<input>` and `<signature>|out|<output>`.

    A restored function is `root.<path>#<trace>`. Empty if nothing matching is recorded.
    """
    keys = (entry, f"root.{entry}", f"root.{entry}#0")
    found: dict[str, dict[str, Any]] = {"in": {}, "out": {}}
    for name, array in arrays.items():
        signature, _, rest = name.partition("|")
        direction, _, tensor = rest.partition("|")
        if signature in keys and direction in found:
            found[direction][tensor] = array
    given, answers = _renamed(found["in"], inputs), _renamed(found["out"], outputs)
    return [] if given is None or not answers else [Recorded(given, answers)]


def _renamed(recorded: dict[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """Renames to our names: "x_indices" may be recorded for "x/indices", and a function's values are recorded by
    position."""
    if recorded.keys() <= set(names):
        return recorded
    spelled = {re.sub(r"\W", "_", name): name for name in names}
    if {re.sub(r"\W", "_", name) for name in recorded} <= spelled.keys():
        return {spelled[re.sub(r"\W", "_", name)]: array for name, array in recorded.items()}
    return dict(zip(names, recorded.values(), strict=True)) if len(recorded) == len(names) else None
