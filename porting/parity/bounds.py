"""Decides whether port and TensorFlow are as close as rounding leaves two correct computations of one graph.

Every value counts, small ones too: the effect of rounding is measured (`porting/parity/rounding.py`) by running the
float64 graph repeatedly with random roundings. That takes minutes for a large tower, so there it runs only if the
report's rule (ratio of RMS errors) finds the port less exact than TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from porting.parity.reference import reference
from porting.parity.report import OutputParity, ParityReport
from porting.parity.rounding import Disturbances
from porting.samples.samples import rows
from porting.tower import PortedTower
from torch_towers.formats.npz import to_numpy
from torch_towers.parity.answers import answer
from torch_towers.parity.recorded import Recorded

RUNS = 8
"""Perturbed runs. The probability that 8 deviations are all below a fifth of their standard deviation is 4e-7."""
FACTOR = 4.0
"""How many times the largest deviation an error may be: correct towers measure up to 2.6, wrong ones 20 or more."""
FUSED = 8.0
"""Roundings at the scale of an output by which TensorFlow's value may differ from float64, whatever its own size."""
CHEAP = 1 << 20
"""Nodes times elements per row of the largest value, up to which every float output is judged this way: at most half a
second."""
_ROWS = 8  # per batch, for two batches

Arrays = Mapping[str, np.ndarray[Any, Any]]


def judge(report: ParityReport, ported: PortedTower, batches: Sequence[Recorded]) -> None:
    """Judges the float outputs of `report` by the effect of rounding: all of a cheap tower, else those less exact than
    TensorFlow's.

    `batches` are in-domain ones that TensorFlow answered. A layer may round less often than the formula that it
    replaces, so outputs that are too far apart are judged again without layers.
    """
    cheap = ported.inside * len(ported.spec.encoder.nodes) <= CHEAP
    asked = [o for o in report.outputs.values() if o.less_exact or (cheap and o.passed and o.dtype.startswith("float"))]
    chosen = _chosen(batches)
    for tower in (ported, ported.without_lifts):
        plain = tower() if callable(tower) else tower
        used = _used(ported, plain, chosen, asked) if asked and plain is not None else {}
        for output in asked:
            if output.name in used:
                _decide(output, used[output.name])
        asked = [output for output in asked if output.name in used and not output.passed]


def _decide(output: OutputParity, used: float) -> None:
    output.rounding = used
    output.passed, output.less_exact, output.reason = used <= 1.0, False, ""
    if not output.passed:
        output.reason = (
            f"port and TensorFlow are {used:.3g} times as far apart as rounding can bring them in this graph"
        )


def _chosen(batches: Sequence[Recorded]) -> list[Recorded]:
    """Two batches of few rows, or the first rows of the last batch."""
    full = [b for b in batches if not isinstance(b.outputs, str) and all(array.size for array in b.outputs.values())]
    small = [batch for batch in full if rows(batch.inputs) <= _ROWS][-2:]
    return small or [_few(batch) for batch in full[-1:]]


def _few(batch: Recorded) -> Recorded:
    """The first rows of a batch whose inputs and outputs all have that many rows; else the whole batch."""
    assert not isinstance(batch.outputs, str)
    arrays = [*batch.inputs.values(), *batch.outputs.values()]
    if len({array.shape[0] if array.ndim else -1 for array in arrays} | {rows(batch.inputs)}) != 1:
        return batch
    inputs, outputs = ({name: a[:_ROWS] for name, a in part.items()} for part in (batch.inputs, batch.outputs))
    return Recorded(inputs, outputs, kind=batch.kind)


def _used(
    ported: PortedTower, plain: PortedTower, batches: Sequence[Recorded], outputs: Sequence[OutputParity]
) -> dict[str, float]:
    """The maximum share of the rounding bound that each output uses; outputs that cannot be judged are omitted."""
    tower, exact = ported.tower(), reference(plain)
    disturbed = Disturbances(plain.tower(), exact)
    used: dict[str, float] = {}
    for batch in batches:
        ours, true = answer(tower, batch.inputs), answer(exact, batch.inputs)
        if isinstance(ours, str) or isinstance(true, str) or isinstance(batch.outputs, str):
            return {}
        runs = [disturbed.run(batch.inputs, seed) for seed in range(RUNS)]
        for output in outputs:
            name = output.name
            if all(name in run for run in runs) and true[name].shape == batch.outputs[name].shape:
                moved = np.max([np.abs(to_numpy(run[name]) - true[name]) for run in runs], axis=0)
                part = _part(ours[name], batch.outputs[name], true[name], FACTOR * moved)
                used[name] = max(used.get(name, 0.0), part)
    return used


def _part(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], true: np.ndarray[Any, Any], allowed: Any) -> float:
    """The maximum share of the bound that a value uses: its distance from TensorFlow's, or that of both from float64.

    At a step (a floor, a maximum), both may fall on one side and float64 on the other; then they are close only to each
    other. TensorFlow's fused kernels (oneDNN's gelu and mish) are accurate relative to the output's scale, but not for
    values near zero; there the port is the accurate one.
    """
    finite = np.isfinite(theirs) & np.isfinite(true)
    o, t, e = (array[finite].astype(np.float64) for array in (ours, theirs, true))
    unit = float(np.finfo(theirs.dtype).eps) / 2
    fused = FUSED * unit * np.sqrt(np.mean(np.square(e))) if e.size else 0.0
    distance = np.minimum(np.abs(o - t), np.maximum(np.abs(o - e), np.abs(t - e) - fused))
    ulp = np.spacing(np.abs(theirs[finite])).astype(np.float64)
    return float(np.max(distance / (allowed[finite] + 2 * ulp), initial=0.0))
