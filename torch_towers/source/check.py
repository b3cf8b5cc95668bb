"""Runs a generated file in a separate process and compares it with its checkpoint on the recorded samples.

`python -m torch_towers.source.check FILE CHECKPOINT` prints the result as JSON.
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
from torch import Tensor

from torch_towers.errors import InputError, TorchTowersError
from torch_towers.formats.npz import to_numpy
from torch_towers.parity.closeness import OTHER_PLACES, ROUNDING, rms, same_specials
from torch_towers.parity.recorded import Recorded
from torch_towers.parity.verify import recorded_in, sides
from torch_towers.tower import Tower
from torch_towers.two_tower import load

TIMEOUT = 900  # seconds

Batch = tuple[dict[str, Any], Mapping[str, Any], bool]
"""The encoder's inputs, its outputs, and whether the batch is decisive: its inputs are in the domain."""

Runner = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Any implementation of an encoder: maps inputs to outputs, by name."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One output of one tower: `apart` is the RMS difference relative to the RMS of the values, 0.0 if bit-exact."""

    tower: str
    output: str
    rows: int
    apart: float
    said: str = ""

    @property
    def passed(self) -> bool:
        return not self.said and self.apart <= ROUNDING["float32"]

    def line(self) -> str:
        """The result as a line of text."""
        said = "bit for bit equal" if not self.apart else f"relative difference {self.apart:.1e} (RMS)"
        return f"{self.tower} {self.output}: {said}, on {self.rows} rows"


def check(text: str, checkpoint: Path, scratch: Path) -> list[Compared]:
    """Runs the file with this text in a child process and returns the result. Errors: `TorchTowersError` if it does not
    run."""
    file = scratch / "tower_source.py"
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "torch_towers.source.check", str(file), str(checkpoint.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it exited without a message"])[-1]
        raise TorchTowersError(f"the source of this checkpoint does not run, and was not written: {last}")
    return [Compared(**item) for item in json.loads(done.stdout.splitlines()[-1])]


def compared(module: Any, checkpoint: Path, *, edges: bool = False) -> list[Compared]:
    """Compares the towers of an imported file with those of the checkpoint, on its recorded samples.

    `edges`: the floats of samples at the edges of a domain count too.
    """
    towers, written = load(checkpoint), module.load(checkpoint)
    batches = recorded_in(checkpoint)
    found: list[Compared] = []
    for name, tower in sides(towers).items():
        known = [(given, theirs, domain or edges) for given, theirs, domain in answered(tower, batches.get(name, ()))]
        found += compare(name, runner(getattr(written, name), list(tower.encoder.graph.outputs)), known)
    return found


def runner(written: Callable[..., Any], outputs: Sequence[str]) -> Runner:
    """Wraps a tower of the file, which takes the encoder's inputs in order and returns a bare tensor if it has one
    output."""

    def run(given: dict[str, Any]) -> Mapping[str, Any]:
        with torch.inference_mode():
            found: Any = written(*given.values())
        return found if isinstance(found, dict) else dict.fromkeys(outputs, found)  # type: ignore[reportUnknownVariableType]

    return run


def answered(tower: Tower, recorded: Sequence[Recorded]) -> list[Batch]:
    """The encoder's inputs and outputs for each sample that the tower accepts."""
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
    """Compares the outputs of `run` with the recorded ones of the tower `name`'s encoder."""
    pairs: dict[str, list[tuple[Any, Any, bool]]] = {}
    for given, theirs, domain in batches:
        ours = run(given)
        for output, value in theirs.items():
            pairs.setdefault(output, []).append((ours[output], value, domain))
    return [compared_output(name, output, found) for output, found in pairs.items()]


def require(found: Sequence[Compared], what: str) -> None:
    """Raises `TorchTowersError` for the first output that is not equal; `what` ("the source") produced it."""
    for item in found:
        if not item.passed:
            said = item.said or f"a relative difference of {item.apart:.1e}"
            raise TorchTowersError(f"{item.tower} {item.output}: {what} gives {said}: nothing was written")


def require_new(target: Path) -> None:
    """Raises `TorchTowersError` if `target` exists: user files are not replaced."""
    if target.exists():
        raise TorchTowersError(f"{target} already exists: remove it, or choose another name")


def compared_output(tower: str, output: str, pairs: Sequence[tuple[Any, Any, bool]]) -> Compared:
    """Compares one output over all batches: (ours, theirs, whether the batch decides about floats)."""
    rows, apart, scale, said = 0, 0.0, 0.0, ""
    decisive = any(domain for _, _, domain in pairs)
    for ours, theirs, domain in pairs:
        mine, other = _array(ours), _array(theirs)
        rows += other.shape[0] if other.ndim else 1
        if mine.shape != other.shape or mine.dtype != other.dtype:
            said = f"{mine.dtype} {list(mine.shape)} where the checkpoint gives {other.dtype} {list(other.shape)}"
        elif other.dtype.kind not in "fc":
            said = said if np.array_equal(mine, other) else "other values"
        elif domain or not decisive:  # at the limits of a float, the summation order changes the result
            finite = np.isfinite(other)
            if not same_specials(mine, other):
                said = OTHER_PLACES + "the checkpoint's"
            apart = max(apart, rms(mine[finite].astype(np.float64) - other[finite].astype(np.float64)))
            scale = max(scale, rms(other[finite].astype(np.float64)))
    return Compared(tower, output, rows, apart / scale if scale and np.isfinite(scale) else apart, said)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)


def imported(file: Path) -> Any:
    """Imports a user's own file as a module, under a name that no library has: a file may be called `keras.py`."""
    name = f"torch_towers_source_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(json.dumps([asdict(item) for item in compared(imported(Path(sys.argv[1])), Path(sys.argv[2]))]))
