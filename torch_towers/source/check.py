"""Check: a generated file, run in a process of its own, beside the checkpoint that it was made from, on the recorded samples.

`python -m torch_towers.source.check FILE CHECKPOINT` prints what was found as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torch_towers.errors import InputError, TorchTowersError
from torch_towers.formats.npz import to_numpy
from torch_towers.parity.closeness import OTHER_PLACES, ROUNDING, rms, same_specials
from torch_towers.parity.recorded import Recorded
from torch_towers.parity.verify import recorded_in, sides
from torch_towers.tower import Tower
from torch_towers.two_tower import load

TIMEOUT = 900  # seconds

Batch = tuple[dict[str, Any], Mapping[str, Any], bool]
"""What the encoder took, what it gave, and whether that decides: inputs in its domain."""

Runner = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Something that stands for an encoder: its inputs to its outputs, by name."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One output of one tower: `apart` is the RMS of the differences relative to that of the values, 0.0 where all bits are equal."""

    tower: str
    output: str
    rows: int
    apart: float
    said: str = ""

    @property
    def passed(self) -> bool:
        return not self.said and self.apart <= ROUNDING["float32"]

    def line(self) -> str:
        """The same for people."""
        said = "equal to the bit" if not self.apart else f"apart {self.apart:.1e} of its size (RMS)"
        return f"{self.tower} {self.output}: {said}, on {self.rows} rows"


def check(text: str, checkpoint: Path, scratch: Path) -> list[Compared]:
    """Runs the file with this text in a child process; what it found. Errors: `TorchTowersError` where it does not run."""
    file = scratch / "tower_source.py"
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "torch_towers.source.check", str(file), str(checkpoint.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise TorchTowersError(f"the source of this checkpoint does not run, and was not written: {last}")
    return [Compared(**item) for item in json.loads(done.stdout.splitlines()[-1])]


def compared(module: Any, checkpoint: Path) -> list[Compared]:
    """The towers of an imported file against those of the checkpoint, on its recorded samples."""
    towers, written = load(checkpoint), module.load(checkpoint)
    batches = recorded_in(checkpoint)
    found: list[Compared] = []
    for name, tower in sides(towers).items():
        known = answered(tower, batches.get(name, ()))
        found += compare(name, _runner(getattr(written, name), list(tower.encoder.graph.outputs)), known)
    return found


def _runner(written: nn.Module, outputs: Sequence[str]) -> Runner:
    """A tower of the file: it takes the encoder's inputs in their order, and gives one tensor where there is one output."""

    def run(given: dict[str, Any]) -> Mapping[str, Any]:
        with torch.inference_mode():
            found: Any = written(*given.values())
        return found if isinstance(found, dict) else dict.fromkeys(outputs, found)  # type: ignore[reportUnknownVariableType]

    return run


def answered(tower: Tower, recorded: Sequence[Recorded]) -> list[Batch]:
    """What the encoder takes and gives for each sample that the tower does not refuse."""
    found: list[Batch] = []
    for batch in recorded:
        try:
            tensors = tower.preprocess(dict(batch.inputs))
            given = {spec.name: tensors[spec.name] for spec in tower.encoder.graph.inputs}
            with torch.inference_mode():
                found.append((given, tower.encoder(**given), batch.kind == "domain"))
        except (InputError, RuntimeError, ValueError, IndexError):
            continue
    return found


def compare(name: str, run: Runner, batches: Sequence[Batch]) -> list[Compared]:
    """What `run` makes of the encoder's inputs, against what the encoder of the tower `name` gave for them."""
    pairs: dict[str, list[tuple[Any, Any, bool]]] = {}
    for given, theirs, domain in batches:
        ours = run(given)
        for output, value in theirs.items():
            pairs.setdefault(output, []).append((ours[output], value, domain))
    return [compared_output(name, output, found) for output, found in pairs.items()]


def require(found: Sequence[Compared], what: str) -> None:
    """Errors: `TorchTowersError` that names the first output that is not equal; `what` ("the source") gave it."""
    for item in found:
        if not item.passed:
            said = item.said or f"apart by {item.apart:.1e} of its size"
            raise TorchTowersError(f"{item.tower} {item.output}: {what} gives {said}: nothing was written")


def require_new(target: Path) -> None:
    """Errors: `TorchTowersError` where something is at `target`: what is somebody's own is not replaced."""
    if target.exists():
        raise TorchTowersError(f"{target} is there already: remove it, or give another name")


def compared_output(tower: str, output: str, pairs: Sequence[tuple[Any, Any, bool]]) -> Compared:
    """One output in batch after batch: (ours, theirs, whether the batch decides about floats)."""
    rows, apart, scale, said = 0, 0.0, 0.0, ""
    decisive = any(domain for _, _, domain in pairs)
    for ours, theirs, domain in pairs:
        mine, other = _array(ours), _array(theirs)
        rows += other.shape[0] if other.ndim else 1
        if mine.shape != other.shape or mine.dtype != other.dtype:
            said = f"{mine.dtype} {list(mine.shape)} where the checkpoint gives {other.dtype} {list(other.shape)}"
        elif other.dtype.kind not in "fc":
            said = said if np.array_equal(mine, other) else "other values"
        elif domain or not decisive:  # at the edges of a float another order of summation is another number
            finite = np.isfinite(other)
            if not same_specials(mine, other):
                said = OTHER_PLACES + "the checkpoint's"
            apart = max(apart, rms(mine[finite].astype(np.float64) - other[finite].astype(np.float64)))
            scale = max(scale, rms(other[finite].astype(np.float64)))
    return Compared(tower, output, rows, apart / scale if scale and np.isfinite(scale) else apart, said)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)


def imported(file: Path) -> Any:
    """The module in a file of the user's own."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(json.dumps([asdict(item) for item in compared(imported(Path(sys.argv[1])), Path(sys.argv[2]))]))
