"""Verify: a checkpoint is intact (every checksum, weights too) and still gives TensorFlow's answers on this machine.

The answers are those that the port recorded in the checkpoint (`samples.npz`), or a user's file: arrays named
`<signature>|in|<input>` and `<signature>|out|<output>`, or the output of `port.py --record`. TensorFlow is not needed.
Integers, strings and ids inside the tower must be equal. Floats must be as close as parity.json recorded for the port,
with a margin for another summation order and for the precision of the tower.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from torch_towers.checkpoint.checkpoint import SAMPLES, read_samples
from torch_towers.errors import InputError
from torch_towers.formats.npz import load_arrays, to_numpy
from torch_towers.info import recorded_parity
from torch_towers.parity.answers import Ranking, answer
from torch_towers.parity.closeness import FLOOR_ULP, OTHER_PLACES, ROUNDING, rms, same_specials
from torch_towers.parity.recorded import Recorded, batches_of, is_recorded, of_reference, unpack
from torch_towers.tower import Tower
from torch_towers.two_tower import TwoTower, load

Array = np.ndarray[Any, Any]

INDEX_SCORES, INDEX_IDS = "index.scores", "index.ids"
"""Names of the outputs of a retrieval index in samples.npz, since the query tower has other outputs."""

_ORDER = 4.0  # margin over the errors that the port measured: another machine or a GPU sums in another order
_MAX_OVER_RMS = (
    64  # maximum error of a single value, in multiples of the allowed RMS: a wrong row exceeds it a million times
)


@dataclass
class Checked:
    """One value of a tower (an output or an inner id) compared with the recorded one."""

    tower: str
    output: str
    values: int
    passed: bool
    said: str


@dataclass
class VerifyReport:
    """The result of a verification."""

    path: str
    bytes: int
    recorded: dict[str, str]  # by tower: the result of the port's comparison
    rows: dict[str, int] = field(default_factory=dict[str, int])  # by tower: rows compared now
    outputs: list[Checked] = field(default_factory=list[Checked])

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = [f"{self.path}: intact: {self.bytes / 1e6:,.1f} MB, every sha256 matches"]
        lines += [f"{tower}: {said}" for tower, said in self.recorded.items()]
        lines += [f"{tower}: compared on {rows} rows here" for tower, rows in self.rows.items()]
        lines += [f"{'ok  ' if o.passed else 'FAIL'} {o.tower} {o.output}: {o.said}" for o in self.outputs]
        if not self.outputs:
            lines.append("it has no recorded answers: port it where TensorFlow is installed, or give --reference")
        return lines


def verify(
    path: str | os.PathLike[str],
    reference: Path | None = None,
    tower: str | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
) -> VerifyReport:
    """Checks a checkpoint, and compares it with the answers recorded in it, or in the file `reference`.

    `tower` ("query", "candidate") selects one tower; None compares all. `device` and `dtype` select where and in which
    precision it runs. Errors: `CheckpointError`, `InputError`.
    """
    towers = load(path, verify=True, device=device, dtype=dtype)
    folder = Path(path)
    parity = recorded_parity(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    report = VerifyReport(str(folder), size, {name: _said(parity, name) for name in sides(towers)})
    batches = recorded_in(folder) if reference is None else _in_file(reference, towers)
    batches = {name: found for name, found in batches.items() if tower in (None, name)}
    report.rows = {name: sum(map(_rows, found)) for name, found in batches.items()}
    report.outputs = compared(towers, batches, parity)
    if reference is not None and not report.outputs:
        held = ", ".join(sorted({name.partition("|")[0] for name in load_arrays(reference)})) or "nothing"
        raise InputError(f"{reference}: has nothing for a tower of {folder}; it has {held}")
    return report


def sides(towers: TwoTower) -> dict[str, Tower]:
    """The existing towers by name."""
    both = {"query": towers.query, "candidate": towers.candidate}
    return {name: tower for name, tower in both.items() if tower is not None}


def recorded_in(folder: Path) -> dict[str, list[Recorded]]:
    """The batches recorded in a checkpoint, by tower; empty if there are none. Errors: `CheckpointError`,
    `InputError`."""
    content = read_samples(folder)
    return {} if content is None else unpack(folder / SAMPLES, content)


def compared(towers: TwoTower, batches: Mapping[str, Sequence[Recorded]], parity: Mapping[str, Any]) -> list[Checked]:
    """Compares the towers' answers for recorded batches with TensorFlow's. `parity` is parity.json by tower."""
    found: list[Checked] = []
    for name, tower in sides(towers).items():
        recorded = batches.get(name, ())
        measured = cast("dict[str, Any]", parity.get(name) or {}).get("outputs", {})
        found += _refusals(name, tower, recorded)
        answered = [batch for batch in recorded if not isinstance(batch.outputs, str)]
        ranking = _ranking(towers, answered)
        ours = [answer(tower, batch.inputs, ranking) for batch in answered]
        kept = [(batch, mine) for batch, mine in zip(answered, ours, strict=True) if not isinstance(mine, str)]
        coarse = tower.dtype not in (torch.float32, torch.float64)  # extreme values may overflow half precision
        refused = [
            mine for batch, mine in zip(answered, ours, strict=True)
            if isinstance(mine, str) and not (coarse and batch.kind == "edge")
        ]  # fmt: skip
        if refused:
            found.append(
                Checked(name, "outputs", len(refused), False, f"refuses what TensorFlow answered: {refused[0]}")
            )
        found += _ids(name, tower, [batch for batch, _ in kept])
        for output in kept[0][0].outputs if kept else ():
            pairs = [(mine.get(output), _of(batch, output), batch.kind) for batch, mine in kept]
            found.append(_checked(name, output, pairs, measured.get(output, {}), tower.dtype))
    return found


def _of(batch: Recorded, output: str) -> Array:
    return cast("Mapping[str, Array]", batch.outputs)[output]


def _rows(batch: Recorded) -> int:
    if isinstance(batch.outputs, str):
        return 0
    return max((array.shape[0] for array in batch.outputs.values() if array.ndim), default=1)


def _refusals(name: str, tower: Tower, recorded: Sequence[Recorded]) -> list[Checked]:
    """Batches that TensorFlow refused must be refused."""
    refused = [batch for batch in recorded if isinstance(batch.outputs, str)]
    if not refused:
        return []
    wrong = [batch for batch in refused if not isinstance(answer(tower, batch.inputs), str)]
    said = f"{len(refused) - len(wrong)} of {len(refused)} batches refused that TensorFlow refused"
    return [Checked(name, "refusals", len(refused), not wrong, said)]


def _ids(name: str, tower: Tower, batches: Sequence[Recorded]) -> list[Checked]:
    """The ids, masks and strings inside the tower: bit-exact."""
    found: list[Checked] = []
    for value in batches[0].ids if batches else ():
        ours = [to_numpy(tower.preprocess(dict(batch.inputs))[value]) for batch in batches]
        found.append(_equal(name, value, [(mine, batch.ids[value]) for mine, batch in zip(ours, batches, strict=True)]))
    return found


def _equal(tower: str, name: str, pairs: Sequence[tuple[Array, Array]]) -> Checked:
    values = sum(theirs.size for _, theirs in pairs)
    equal = sum(int(np.count_nonzero(ours == theirs)) for ours, theirs in pairs if ours.shape == theirs.shape)
    return Checked(tower, name, values, equal == values, f"{equal} of {values} values equal")


def _checked(
    tower: str,
    name: str,
    pairs: Sequence[tuple[Array | None, Array, str]],
    measured: Mapping[str, Any],
    dtype: torch.dtype,
) -> Checked:
    present = [(ours, theirs) for ours, theirs, _ in pairs if ours is not None]
    if len(present) < len(pairs):
        return Checked(tower, name, 0, False, "the tower does not return it")
    for ours, theirs in present:
        same_kind = ours.dtype == theirs.dtype or (
            ours.dtype.kind == theirs.dtype.kind == "f" and dtype != torch.float32
        )
        if ours.shape != theirs.shape or not same_kind:
            said = f"{ours.dtype} {list(ours.shape)} instead of the recorded {theirs.dtype} {list(theirs.shape)}"
            return Checked(tower, name, int(theirs.size), False, said)
    if present[0][1].dtype.kind not in "fc":
        return _equal(tower, name, present)
    decisive = [(ours, theirs) for (ours, theirs), (_, _, kind) in zip(present, pairs, strict=True) if kind == "domain"]
    ours, theirs = (np.concatenate([pair[i].reshape(-1) for pair in decisive or present]) for i in range(2))
    return _near(Checked(tower, name, int(theirs.size), False, ""), ours, theirs, measured, dtype)


def _near(result: Checked, ours: Array, theirs: Array, measured: Mapping[str, Any], dtype: torch.dtype) -> Checked:
    """Whether floats are as close to TensorFlow's as rounding allows."""
    finite = np.isfinite(theirs)
    if not same_specials(ours, theirs):
        result.said = OTHER_PLACES + "the recorded answers"
        return result
    apart = np.abs(ours[finite].astype(np.float64) - theirs[finite].astype(np.float64))
    coarse = max(1.0, torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)
    scale, ulp = rms(theirs[finite].astype(np.float64)), rms(np.spacing(np.abs(theirs[finite])).astype(np.float64))
    allowed = coarse * (_relative(measured) * scale + FLOOR_ULP * ulp)
    distance, worst = rms(apart), float(apart.max(initial=0.0))
    result.passed = distance <= allowed and worst <= _MAX_OVER_RMS * allowed
    result.said = (
        f"apart {distance:.2e} (RMS; {allowed:.2e} is allowed), at most {worst:.2e}, of values around {scale:.2g}"
    )
    return result


def _relative(measured: Mapping[str, Any]) -> float:
    """The allowed distance of an output from TensorFlow's, relative to its RMS, from both errors in parity.json."""
    errors, size = [measured.get("error"), measured.get("tensorflow_error")], measured.get("scale")
    if isinstance(size, float) and size > 0 and all(isinstance(error, float) for error in errors):
        return min(ROUNDING["float32"], _ORDER * sum(cast("list[float]", errors)) / size)
    return ROUNDING["float32"]


def _ranking(towers: TwoTower, recorded: Sequence[Recorded]) -> Ranking | None:
    """The checkpoint's index, if the recorded answers are its outputs."""
    names = {name for batch in recorded for name in cast("Mapping[str, Array]", batch.outputs)}
    if towers.candidates is None or not names & {INDEX_SCORES, INDEX_IDS}:
        return None
    scores, ids = (name if name in names else None for name in (INDEX_SCORES, INDEX_IDS))
    return Ranking(towers.candidates, scores, ids)


def _in_file(path: Path, towers: TwoTower) -> dict[str, list[Recorded]]:
    """The recorded batches of a user's file for each tower."""
    arrays = load_arrays(path)
    found: dict[str, list[Recorded]] = {}
    for name, tower in sides(towers).items():
        source = towers.source.get(name)
        entry = (
            str(cast("Mapping[str, Any]", source).get("entry", "serving_default"))
            if isinstance(source, Mapping)
            else "serving_default"
        )
        inputs, outputs = [spec.name for spec in tower.inputs], [spec.name for spec in tower.outputs]
        batches = (
            batches_of(arrays, path).get(entry, [])
            if is_recorded(arrays)
            else of_reference(arrays, entry, inputs, outputs)
        )
        if batches:
            found[name] = batches
    return found


def _said(parity: Mapping[str, Any], name: str) -> str:
    found = parity.get(name)
    if not isinstance(found, dict):
        return str(parity.get("reason", "no parity was recorded"))
    fields = cast("dict[str, Any]", found)
    if fields.get("compared_with") == "nothing":
        return "was not compared when it was ported"
    equal = "was equal to" if fields.get("passed") else "was NOT equal to"
    return f"{equal} {fields.get('compared_with')} on {fields.get('rows')} rows when it was ported"
