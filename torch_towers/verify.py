"""Verify: a checkpoint is whole (every checksum, weights too), and gives the answers that were recorded from TensorFlow.

Recorded answers are arrays in a `.npz` file: `<signature>|in|<input>` and `<signature>|out|<output>`. Integers and strings must
be equal; floats as near as parity.json says that the port was to TensorFlow, relative to their size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from torch_towers.arrays import load_arrays
from torch_towers.errors import InputError
from torch_towers.info import recorded_parity
from torch_towers.registry import Strings
from torch_towers.tower import Tower
from torch_towers.two_tower import load

RATIO, FLOOR_ULP, ROUNDING = 1.25, 4.0, 2e-5  # those by which the port was accepted
_WORST = 64  # no value further off than so many times the RMS that is allowed: a wrong row is millions of times off


@dataclass
class Checked:
    """One output, compared with what was recorded."""

    tower: str
    output: str
    values: int
    passed: bool
    said: str


@dataclass
class VerifyReport:
    """What was verified."""

    path: str
    bytes: int
    recorded: dict[str, str]
    outputs: list[Checked] = field(default_factory=list[Checked])

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"{self.path}: whole: {self.bytes / 1e6:,.1f} MB, every sha256 is right"]
        lines += [f"{tower}: {said}" for tower, said in self.recorded.items()]
        return lines + [f"{'ok  ' if o.passed else 'FAIL'} {o.tower} {o.output}: {o.said}" for o in self.outputs]


def verify(path: str | os.PathLike[str], reference: Path | None = None, tower: str | None = None) -> VerifyReport:
    """Checks a checkpoint, and compares it with recorded answers where given. Errors: `CheckpointError`, `InputError`."""
    towers = load(path, verify=True)
    folder = Path(path)
    parity = recorded_parity(folder)
    sides = {name: side for name, side in (("query", towers.query), ("candidate", towers.candidate)) if side}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    report = VerifyReport(str(folder), size, {name: _recorded(parity, name) for name in sides})
    if reference is None:
        return report
    arrays = load_arrays(reference)
    for name, side in sides.items():
        if tower not in (None, name):
            continue
        entry = (
            str(towers.source.get(name, {}).get("entry", "serving_default"))
            if _described(towers.source.get(name))
            else "serving_default"
        )
        report.outputs += _compared(name, side, _entry(arrays, entry), cast("dict[str, Any]", parity.get(name) or {}))
    if not report.outputs:
        held = ", ".join(sorted({name.partition("|")[0] for name in arrays})) or "nothing"
        raise InputError(f"{reference}: holds nothing that fits a tower of {folder}; it has {held}")
    return report


def _described(source: Any) -> bool:
    return isinstance(source, Mapping)


def _recorded(parity: Mapping[str, Any], name: str) -> str:
    found = parity.get(name)
    if not isinstance(found, dict):
        return str(parity.get("reason", "no parity was recorded"))
    fields = cast("dict[str, Any]", found)
    if fields.get("compared_with") == "nothing":
        return "was not compared when it was ported"
    equal = "was equal to" if fields.get("passed") else "was NOT equal to"
    return f"{equal} {fields.get('compared_with')} on {fields.get('rows')} rows when it was ported"


def _entry(arrays: Mapping[str, Any], entry: str) -> dict[str, dict[str, Any]]:
    """The inputs and outputs of one entry; a restored function is recorded as `root.<path>#<trace>`."""
    found: dict[str, dict[str, Any]] = {"in": {}, "out": {}}
    for name, array in arrays.items():
        signature, _, rest = name.partition("|")
        direction, _, tensor = rest.partition("|")
        if signature in (entry, f"root.{entry}", f"root.{entry}#0") and direction in found:
            found[direction][tensor] = array
    return found


def _compared(name: str, tower: Tower, found: Mapping[str, dict[str, Any]], parity: Mapping[str, Any]) -> list[Checked]:
    inputs = _renamed(found["in"], [spec.name for spec in tower.inputs])
    expected = _renamed(found["out"], [spec.name for spec in tower.outputs])
    if inputs is None or not expected:
        return []
    ours = tower(inputs)
    measured = parity.get("outputs", {})
    return [_checked(name, key, ours[key], value, measured.get(key, {})) for key, value in expected.items()]


def _renamed(recorded: Mapping[str, Any], names: list[str]) -> dict[str, Any] | None:
    """By our names: a name may be spelled with "_" for other signs, and functions' values are recorded by position."""
    if recorded.keys() <= set(names):
        return dict(recorded)
    spelled = {re.sub(r"\W", "_", name): name for name in names}
    if {re.sub(r"\W", "_", name) for name in recorded} <= spelled.keys():
        return {spelled[re.sub(r"\W", "_", name)]: array for name, array in recorded.items()}
    return dict(zip(names, recorded.values(), strict=True)) if len(recorded) == len(names) else None


def _checked(
    tower: str, name: str, ours: Tensor | Strings, theirs: np.ndarray[Any, Any], parity: Mapping[str, Any]
) -> Checked:
    found = ours.detach().cpu().numpy() if isinstance(ours, Tensor) else ours
    result = Checked(tower, name, int(theirs.size), False, "")
    if found.shape != theirs.shape or found.dtype != theirs.dtype:
        result.said = f"{found.dtype} {list(found.shape)} for the recorded {theirs.dtype} {list(theirs.shape)}"
        return result
    if theirs.dtype.kind not in "fc":
        equal = int(np.count_nonzero(found == theirs))
        result.passed, result.said = equal == theirs.size, f"{equal} of {theirs.size} values equal"
        return result
    finite = np.isfinite(theirs)
    if not np.array_equal(found[~finite], theirs[~finite], equal_nan=True):
        result.said = "NaN or infinities stand in other places than in the recorded answers"
        return result
    apart = np.abs(found[finite].astype(np.float64) - theirs[finite].astype(np.float64))
    scale = _rms(theirs[finite].astype(np.float64))
    allowed = _allowed(parity, scale, _rms(np.spacing(np.abs(theirs[finite])).astype(np.float64)))
    rms, worst = _rms(apart), float(apart.max(initial=0.0))
    result.passed = rms <= allowed and worst <= _WORST * allowed
    result.said = f"apart {rms:.2e} (RMS; {allowed:.2e} is allowed), at most {worst:.2e}, of values around {scale:.2g}"
    return result


def _allowed(parity: Mapping[str, Any], scale: float, ulp: float) -> float:
    """How far the port may be from TensorFlow: both errors that parity.json records, and a few ulp."""
    measured, size = parity.get("tensorflow_error"), parity.get("scale")
    relative = ROUNDING
    if isinstance(measured, float) and isinstance(size, float) and size > 0:
        relative = min(ROUNDING, (1 + RATIO) * measured / size)
    return relative * scale + FLOOR_ULP * ulp


def _rms(values: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
