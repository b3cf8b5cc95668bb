"""Bounds: whether port and TensorFlow are as near each other as rounding leaves two right ways to compute one graph.

Value by value, small ones too: what rounding can do is measured (`porting/parity/rounding.py`) by running the float64 graph again
and again, each time with other roundings. A large tower takes minutes for that; there it is asked only where the rule of the
report (ratio of RMS errors) finds the port less exact than TensorFlow.
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
"""Disturbed runs. That 8 movements are all below a fifth of their standard deviation has a probability of 4e-7."""
FACTOR = 4.0
"""How many times the largest of the movements an error may be: right towers measure up to 2.6, wrong ones from 20."""
FUSED = 8.0
"""Roundings, at the scale of an output, that TensorFlow's value may be away from float64 whatever its own size."""
CHEAP = 1 << 20
"""Nodes times elements of the largest value of a row, up to which every float output is judged so: half a second at most."""
_ROWS = 8  # of a batch, and two batches

Arrays = Mapping[str, np.ndarray[Any, Any]]


def judge(report: ParityReport, ported: PortedTower, batches: Sequence[Recorded]) -> None:
    """Decides the float outputs of `report` by what rounding can do: all of a cheap tower, else those less exact than TensorFlow's.

    `batches` are those in the domain that TensorFlow answered. A formula that a layer stands for rounds less often than the graph as
    it is written: what is too far apart for the layers is looked at without them.
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
    """Two batches of few rows; where all have many, the first rows of the last."""
    full = [b for b in batches if not isinstance(b.outputs, str) and all(array.size for array in b.outputs.values())]
    small = [batch for batch in full if rows(batch.inputs) <= _ROWS][-2:]
    return small or [_few(batch) for batch in full[-1:]]


def _few(batch: Recorded) -> Recorded:
    """The first rows of a batch whose inputs and outputs have as many rows each; else the whole batch."""
    assert not isinstance(batch.outputs, str)
    arrays = [*batch.inputs.values(), *batch.outputs.values()]
    if len({array.shape[0] if array.ndim else -1 for array in arrays} | {rows(batch.inputs)}) != 1:
        return batch
    inputs, outputs = ({name: a[:_ROWS] for name, a in part.items()} for part in (batch.inputs, batch.outputs))
    return Recorded(inputs, outputs, kind=batch.kind)


def _used(
    ported: PortedTower, plain: PortedTower, batches: Sequence[Recorded], outputs: Sequence[OutputParity]
) -> dict[str, float]:
    """How much of what rounding can do the values of each output take, at most; outputs that cannot be told are left out."""
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
    """The largest share of what is allowed that a value takes: its distance from TensorFlow's, or that of the two from float64.

    Where a step (a floor, the larger of two) falls to one side for both and to the other in float64, they are near each other alone.
    Kernels that TensorFlow fuses (oneDNN's gelu and mish) are exact for values of the output's scale, and not for those near zero;
    there the port, which is, is right.
    """
    finite = np.isfinite(theirs) & np.isfinite(true)
    o, t, e = (array[finite].astype(np.float64) for array in (ours, theirs, true))
    unit = float(np.finfo(theirs.dtype).eps) / 2
    fused = FUSED * unit * np.sqrt(np.mean(np.square(e))) if e.size else 0.0
    distance = np.minimum(np.abs(o - t), np.maximum(np.abs(o - e), np.abs(t - e) - fused))
    ulp = np.spacing(np.abs(theirs[finite])).astype(np.float64)
    return float(np.max(distance / (allowed[finite] + 2 * ulp), initial=0.0))
