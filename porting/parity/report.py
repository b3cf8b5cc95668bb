"""The parity report: the distance between port and TensorFlow, and whether it is rounding.

For every float output it states three numbers over the same inputs: the port's error and TensorFlow's own error, both
relative to a float64 run with the same weights and ids, and the distance between the two. `porting/parity/bounds.py`
decides, value by value, whether that is rounding. Before that, and exclusively for towers where it takes minutes, an
RMS rule applies: the port's error is at most `RATIO` times TensorFlow's (with a floor of a few ulp), and TensorFlow's
distance from the float64 run, or from the port, is rounding too: a port that computes something else has the same
mistake in its own float64 run, and shows there. Integers, booleans and strings are bit-exact. Ids of a ranking may swap
places only if their scores tie within the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from torch_towers.parity.closeness import FLOOR_ULP, OTHER_PLACES, ROUNDING, rms, same_specials
from torch_towers.parity.recorded import Recorded

RATIO = 1.25
ORDER = 16.0  # the port's median error over TensorFlow's, among values of one magnitude
MANY = 8  # values needed for a median
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass
class OutputParity:
    """The comparison of one output."""

    name: str
    dtype: str
    values: int = 0
    equal: int = 0  # bit-exact values
    ties: int = 0  # ids that swapped places with one of equal score
    error: float = 0.0  # RMS of port - float64
    tensorflow_error: float = 0.0  # RMS of TensorFlow - float64
    distance: float = 0.0  # RMS of port - TensorFlow
    worst: float = 0.0  # max of |port - TensorFlow|
    scale: float = 0.0  # RMS of the output
    ulp: float = 0.0  # RMS of the spacing of floats at the output's values
    rounding: float | None = None  # the maximum share of the rounding bound that an error uses
    passed: bool = True
    reason: str = ""
    less_exact: bool = False  # the only problem is that it is less exact than TensorFlow

    @property
    def ratio(self) -> float:
        """The port's RMS error over TensorFlow's; 1 if both are exact."""
        if self.tensorflow_error == 0.0:
            return 1.0 if self.error == 0.0 else float("inf")
        return self.error / self.tensorflow_error


@dataclass
class ParityReport:
    """The comparison of one tower."""

    compared_with: str  # "TensorFlow 2.21.0", "recorded outputs", "nothing"
    why_not: str = ""  # the reason if nothing was compared
    unanswered: bool = False  # TensorFlow itself cannot run this SavedModel
    batches: int = 0
    rows: int = 0
    domain_rows: int = 0  # answered in-domain rows, which decide about floats
    edge_rows: int = 0
    said: str = ""  # TensorFlow's message for a refused batch, if it answered too few
    wanted: int = 1  # in-domain rows needed for a verdict
    refused: int = 0  # batches that both refused
    mended: int = 0  # batches answered by TensorFlow without oneDNN, since oneDNN's kernels get their shapes wrong
    mended_said: str = ""  # TensorFlow's message for the first of them with oneDNN
    outputs: dict[str, OutputParity] = field(default_factory=dict[str, OutputParity])
    ids: dict[str, OutputParity] = field(default_factory=dict[str, OutputParity])  # values of the preprocessing
    failures: list[str] = field(default_factory=list[str])
    recorded: list[Recorded] = field(
        default_factory=list[Recorded], repr=False
    )  # the compared batches, for the checkpoint

    @property
    def passed(self) -> bool:
        return not self.failures and all(part.passed for part in (*self.outputs.values(), *self.ids.values()))

    @property
    def enough(self) -> bool:
        """Whether there is a verdict: with too few answered rows the port is neither equal nor unequal."""
        return not self.unanswered and (self.compared_with == "nothing" or self.domain_rows >= self.wanted)

    @property
    def verdict(self) -> str:
        """ "equal", "unequal", "not enough evidence" or "not compared"."""
        if not self.passed:
            return "unequal"
        if self.compared_with == "nothing" and self.enough:
            return "not compared"
        return "equal" if self.enough else "not enough evidence"

    def compare_ids(self, batches: Sequence[tuple[Arrays, Arrays]]) -> None:
        """Compares ids, masks and strings inside the tower, (ours, TensorFlow's) by name, bit for bit."""
        for name in batches[0][1] if batches else ():
            triples = [(ours.get(name), theirs[name], None) for ours, theirs in batches]
            self.ids[name] = _compare_output(name, triples)

    def as_json(self) -> dict[str, Any]:
        """Plain data for parity.json."""
        outputs = {name: {**asdict(output), "ratio": _finite(output.ratio)} for name, output in self.outputs.items()}
        ids = {name: {"values": i.values, "equal": i.equal, "dtype": i.dtype} for name, i in self.ids.items()}
        plain = asdict(replace(self, recorded=[]))
        del plain["recorded"]
        return {**plain, "outputs": outputs, "ids": ids, "passed": self.passed, "verdict": self.verdict}

    def lines(self) -> list[str]:
        """The report as text, one line per output."""
        if self.compared_with == "nothing":
            return [f"  not compared: {self.why_not}"]
        lines = [f"  compared with {self.compared_with} on {self.rows} rows in {self.batches} batches" + (
            f": {self.domain_rows} in the domain, {self.edge_rows} at its edges" if self.edge_rows else "") + (
            f"; {self.refused} more refused by both" if self.refused else "")]  # fmt: skip
        if self.mended:
            lines.append(
                f"  {self.mended} of the batches compared with TensorFlow without oneDNN, which fails on them: {self.mended_said}"
            )
        if not self.enough:
            lines.append(f"  not enough evidence: TensorFlow answered {self.domain_rows} rows in the domain, "
                         f"{self.wanted} are needed: "
                         f"give examples with --inputs{self.said}")  # fmt: skip
        for part in (*self.ids.values(), *self.outputs.values()):
            lines.append(f"  {'ok  ' if part.passed else 'FAIL'} {part.name}: {describe(part)}")
        return lines + [f"  FAIL {failure}" for failure in self.failures]


def describe(output: OutputParity) -> str:
    """Describes one output."""
    if not output.dtype.startswith(("float", "bfloat", "complex")):
        ties = f", {output.ties} of equal score in another place" if output.ties else ""
        return f"{output.equal} of {output.values} {output.dtype} values equal to the bit{ties}{_because(output)}"
    return (
        f"RMS error {output.error:.2e}, TensorFlow's own {output.tensorflow_error:.2e} (ratio {output.ratio:.2f}), "
        f"apart {output.distance:.2e}, at most {output.worst:.2e}, of values around {output.scale:.2g}{_within(output)}{_because(output)}"
    )


def _within(output: OutputParity) -> str:
    if output.rounding is None:
        return ""
    return f"; {output.rounding:.2f} of what rounding can do in this graph"


def _because(output: OutputParity) -> str:
    return f": {output.reason}" if output.reason else ""


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def compare(
    port: Sequence[Any],
    tensorflow: Sequence[Any],
    exact: Sequence[Any],
    *,
    compared_with: str,
    precisions: Mapping[str, str] | None = None,
    kinds: Sequence[str] = (),
) -> ParityReport:
    """The report over batches. Each batch is a dict of arrays by output name, or the message (str) of a refusal.

    `exact` is the float64 run of the same batches, `precisions` the coarsest float to which each output is rounded
    on its way, if not its own dtype. `kinds` says for each
    batch whether it is "domain" (the default) or "edge".
    """
    report = ParityReport(compared_with)
    kept: list[tuple[Arrays, Arrays, Arrays]] = []
    decisive: list[bool] = []
    for ours, theirs, reference, kind in zip(port, tensorflow, exact, kinds or ["domain"] * len(port), strict=True):
        if isinstance(ours, str) or isinstance(theirs, str):
            _compare_refusals(report, ours, theirs)
        elif isinstance(reference, str):
            report.failures.append(f"the port answers, but its float64 reference run refuses: {reference}")
        else:
            kept.append((ours, theirs, reference))
            decisive.append(kind == "domain")
    report.batches = len(kept)
    report.rows = sum(_rows(theirs) for _, theirs, _ in kept)
    report.domain_rows = sum(_rows(theirs) for (_, theirs, _), domain in zip(kept, decisive, strict=True) if domain)
    report.edge_rows = report.rows - report.domain_rows
    said = next((theirs for theirs in tensorflow if isinstance(theirs, str)), "")
    report.said = f" (TensorFlow said: {said})" if said else ""
    for name in kept[0][1] if kept else ():
        floating = kept[0][1][name].dtype.kind in "fc" and any(decisive)
        triples = [
            (ours.get(name), theirs[name], reference.get(name))
            for (ours, theirs, reference), domain in zip(kept, decisive, strict=True)
            if domain or not floating
        ]
        report.outputs[name] = _compare_output(name, triples, (precisions or {}).get(name))
    for output in report.outputs.values():
        if not output.passed and not output.dtype.startswith("float"):
            _forgive_ties(output, [(ours, theirs) for ours, theirs, _ in kept])
    return report


def _compare_refusals(report: ParityReport, ours: Any, theirs: Any) -> None:
    if isinstance(ours, str) and isinstance(theirs, str):
        report.refused += 1
    elif isinstance(ours, str):
        report.failures.append(f"the port refuses what TensorFlow answers: {ours}")
    else:
        report.failures.append(f"the port answers what TensorFlow refuses: {theirs}")


def _rows(arrays: Arrays) -> int:
    return max((array.shape[0] if array.ndim else 1 for array in arrays.values()), default=0)


def _compare_output(
    name: str, triples: Sequence[tuple[Any, np.ndarray[Any, Any], Any]], precision: str | None = None
) -> OutputParity:
    theirs = [triple[1] for triple in triples]
    output = OutputParity(name, "string" if theirs[0].dtype == object else theirs[0].dtype.name)
    for ours, expected, _ in triples:
        problem = _mismatch(ours, expected)
        if problem:
            output.passed, output.reason = False, problem
            return output
    ours = _flat([triple[0] for triple in triples])
    expected = _flat(theirs)
    output.values = expected.size
    output.equal = int(np.count_nonzero(_same(ours, expected)))
    if expected.dtype.kind not in "fc":
        output.passed = output.equal == output.values
        output.reason = "" if output.passed else _first_difference(ours, expected)
        return output
    _measure(output, ours, expected, _flat([triple[2] for triple in triples]), precision or output.dtype)
    return output


def _mismatch(ours: Any, expected: np.ndarray[Any, Any]) -> str:
    if ours is None:
        return "the port does not give it"
    if ours.shape != expected.shape:
        return f"its shape is {list(ours.shape)}, TensorFlow's {list(expected.shape)}"
    if ours.dtype != expected.dtype:
        return f"its dtype is {ours.dtype}, TensorFlow's {expected.dtype}"
    return ""


def _flat(arrays: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.concatenate([array.reshape(-1) for array in arrays])


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a == b) | ((a != a) & (b != b))


def _first_difference(ours: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> str:
    at = int(np.flatnonzero(ours != expected)[0])
    return f"the first difference is {shown(ours[at])}, TensorFlow's {shown(expected[at])}"


def shown(value: Any) -> str:
    """A value as readable text."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return f"{value:.9g}" if isinstance(value, float) else repr(value)


def _measure(
    output: OutputParity,
    ours: np.ndarray[Any, Any],
    theirs: np.ndarray[Any, Any],
    exact: np.ndarray[Any, Any],
    precision: str,
) -> None:
    finite = np.isfinite(theirs)
    if not same_specials(ours, theirs):
        output.passed, output.reason = False, OTHER_PLACES + "TensorFlow's"
        return
    wide, wide_theirs = ours[finite].astype(np.float64), theirs[finite].astype(np.float64)
    exact = exact[finite].astype(np.float64)
    exact = np.where(np.isfinite(exact), exact, wide_theirs)  # otherwise nothing would be known of these
    output.error = rms(wide - exact)
    output.tensorflow_error = rms(wide_theirs - exact)
    output.distance = rms(wide - wide_theirs)
    output.worst = float(np.abs(wide - wide_theirs).max(initial=0.0))
    output.scale = rms(exact)
    spacing = np.spacing(np.abs(theirs[finite])).astype(np.float64)
    coarse = precision if precision in ("float16", "bfloat16") else "float64"  # otherwise the output's own precision
    output.ulp = rms(np.maximum(spacing, np.abs(wide_theirs) * _EPSILON[coarse]))
    # A graph that magnifies rounding (a softmax of large logits) moves both equally far from the float64 run: then they
    # are close to each other, unlike a port with another formula.
    if (
        min(output.tensorflow_error, output.distance)
        > ROUNDING.get(precision, ROUNDING["float32"]) * output.scale + FLOOR_ULP * output.ulp
    ):
        output.passed = False
        output.reason = (
            f"TensorFlow is {output.tensorflow_error:.1e} away from the float64 run, of values around {output.scale:.1e}: "
            "that is not rounding"
        )
    elif output.error > RATIO * output.tensorflow_error + FLOOR_ULP * output.ulp:
        output.passed = False
        output.less_exact = _of_one_order(np.abs(wide - exact), np.abs(wide_theirs - exact), np.abs(exact), spacing)
        output.reason = f"the port's error is {output.ratio:.2f} times TensorFlow's, more than {RATIO}"


def _of_one_order(
    ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], size: np.ndarray[Any, Any], ulp: np.ndarray[Any, Any]
) -> bool:
    """Whether the port's errors are of the same order as TensorFlow's among values of each magnitude, small ones
    too."""
    decades = np.floor(np.log10(np.maximum(size, np.finfo(np.float64).tiny)))
    for decade in np.unique(decades):
        among = decades == decade
        if np.count_nonzero(among) >= MANY:
            known = max(float(np.median(theirs[among])), float(np.median(ulp[among])) / 2)
            if float(np.median(ours[among])) > ORDER * known:
                return False
    return True


def _forgive_ties(output: OutputParity, batches: Sequence[tuple[Arrays, Arrays]]) -> None:
    """Passes ids of a ranking that swapped places only where the scores (an equally shaped float output) tie within the
    error."""
    ties = 0
    for ours, theirs in batches:
        if output.name not in ours or ours[output.name].shape != theirs[output.name].shape:
            return
        swapped = ours[output.name] != theirs[output.name]
        scores = next(
            (array for array in theirs.values() if array.dtype.kind == "f" and array.shape == swapped.shape), None
        )
        if scores is None or scores.ndim == 0:
            return
        bound = 8 * np.spacing(np.abs(scores[np.isfinite(scores)]).max(initial=0.0))
        with np.errstate(invalid="ignore"):  # NaN, or infinity minus infinity: no order is right
            gaps = ~(np.abs(np.diff(scores, axis=-1)) > bound)
            last = ~(np.abs(scores - scores[..., -1:]) > bound)  # the last id may tie with one that TensorFlow left out
        edge = np.zeros((*scores.shape[:-1], 1), bool)
        tied = np.concatenate([gaps, edge], -1) | np.concatenate([edge, gaps], -1) | last
        if np.any(swapped & ~tied):
            return
        ties += int(np.count_nonzero(swapped))
    output.ties, output.passed, output.reason = ties, True, ""
