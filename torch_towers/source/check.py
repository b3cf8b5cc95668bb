"""Check: a generated file, run in a process of its own, beside the checkpoint that it was made from, on the recorded samples.

`python -m torch_towers.source.check FILE CHECKPOINT` prints what was found as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
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
        found += _tower(name, tower, getattr(written, name), batches.get(name, ()))
    return found


def _tower(name: str, tower: Tower, written: nn.Module, batches: Sequence[Recorded]) -> list[Compared]:
    answers: dict[str, list[tuple[Any, Any, bool]]] = {}
    for batch in batches:
        try:
            tensors = tower.preprocess(dict(batch.inputs))
            given = [tensors[spec.name] for spec in tower.encoder.graph.inputs]
            with torch.inference_mode():
                theirs: dict[str, Any] = tower.encoder(
                    **{spec.name: value for spec, value in zip(tower.encoder.graph.inputs, given, strict=True)}
                )
        except (InputError, RuntimeError, ValueError, IndexError):
            continue  # a batch that the tower refuses
        with torch.inference_mode():
            ours: Any = written(*given)
        mine: dict[str, Any] = ours if isinstance(ours, dict) else dict.fromkeys(theirs, ours)  # type: ignore[reportUnknownVariableType]
        for output, value in theirs.items():
            answers.setdefault(output, []).append((mine[output], value, batch.kind == "domain"))
    return [compared_output(name, output, pairs) for output, pairs in answers.items()]


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
