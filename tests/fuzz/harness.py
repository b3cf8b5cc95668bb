"""Runs a fuzz target in a separate process, which tries many inputs and measures the cost of each.

A finding is an input that gives anything but the right answer or a `TorchTowersError`, takes more than five
seconds of CPU time, or 300 MB and its own size above the baseline. The input is saved under `build/fuzz`.

`python -m tests.fuzz.harness MODULE` tries some fixed inputs; with FUZZ_SECONDS, random ones for as long, guided by
coverage where atheris is installed; with FILE ..., those files.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import importlib
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "build" / "fuzz"
INPUTS = 150  # without FUZZ_SECONDS
CPU_SECONDS, MEMORY = int(os.environ.get("FUZZ_CPU_SECONDS", "5")), 300 << 20
PATIENT_SECONDS = (
    20  # for fixed inputs: tests pass on slow and busy machines; what grows with the square of a file takes longer
)
LARGEST = 1 << 20
_NO_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "Cannot allocate")


def fuzz(module: str, seconds: int = 0, seed: int = 0) -> list[str]:
    """The findings of a run: for each a sentence with its saved file, and the process's last output."""
    name = module.rpartition(".")[2].removeprefix("test_")
    folder = FINDINGS / name
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    limit = CPU_SECONDS if seconds else PATIENT_SECONDS
    settings = {
        "OMP_NUM_THREADS": "1",
        "FUZZ_SECONDS": str(seconds),
        "FUZZ_SEED": str(seed),
        "FUZZ_CPU_SECONDS": str(limit),
    }
    command = [sys.executable, "-m", "tests.fuzz.harness", module]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    made = [path for path in sorted(folder.iterdir()) if path not in before and path.name not in ("current", "again")]
    found = [f"{path}: {path.with_suffix('.txt').read_text()}" for path in made if path.suffix == ".input"]
    if done.returncode and not found:
        if _passes_alone(command, folder / "current", settings):  # what came before it in that process had its share
            return []
        path = folder / f"{seed}-{os.getpid()}.input"
        with contextlib.suppress(FileNotFoundError):
            (folder / "current").rename(path)
        why = f"ended with {done.returncode}: {done.stderr[-4000:]}"
        path.with_suffix(".txt").write_text(why)
        found = [f"{path}: {why}"]
    return found


def outcomes(module: str, inputs: Mapping[str, bytes]) -> dict[str, str]:
    """What becomes of each input, by name, tried one after another in one process: "answered", "refused: ..." or "finding: ...".

    An input at which the process ends, and those after it, have none. An input has `PATIENT_SECONDS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = {str(Path(folder) / str(i)): name for i, name in enumerate(inputs)}
        for path, name in names.items():
            Path(path).write_bytes(inputs[name])
        command = [sys.executable, "-m", "tests.fuzz.harness", module, *names]
        settings = {"OMP_NUM_THREADS": "1", "FUZZ_SECONDS": "0", "FUZZ_CPU_SECONDS": str(PATIENT_SECONDS)}
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)
    lines = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    return {names[path]: json.loads(said) for path, said in lines if path in names}


def _passes_alone(command: list[str], path: Path, settings: dict[str, str]) -> bool:
    """Whether an input at which a process ended does no harm in a process of its own."""
    if not path.exists():
        return False
    copy = path.with_name("again")
    copy.write_bytes(path.read_bytes())
    alone = {**os.environ, **settings, "FUZZ_SECONDS": "0"}
    again = subprocess.run([*command, str(copy)], cwd=ROOT, env=alone, capture_output=True, check=False)
    path.write_bytes(copy.read_bytes())
    copy.unlink()
    return again.returncode == 0


class _Watch:
    """One attempt at a time, within its limits."""

    def __init__(self, target: Any, folder: Path) -> None:
        from torch_towers.errors import TorchTowersError

        self._attempt: Callable[[bytes], None] = target.attempt
        self._refusals: tuple[type[BaseException], ...] = (TorchTowersError, *getattr(target, "REFUSALS", ()))
        self._folder = folder
        self.places: set[Any] = set()
        self.count = self.refused = 0

    def __call__(self, data: bytes) -> str:
        """Tries an input. Returns what became of it."""
        self.count += 1
        (self._folder / "current").write_bytes(data)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY + len(data), resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        found = None
        try:
            self._attempt(data)
        except Exception as error:
            found = error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if isinstance(found, self._refusals) and not _of_memory(found) and len(str(found)) < 4096:
            self.refused += 1
            return f"refused: {found}"
        if found is not None:
            self._save(data, found)
            return f"finding: {type(found).__name__}: {found}"
        return "answered"

    def _save(self, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = type(error), next((f.filename, f.lineno) for f in reversed(frames) if str(ROOT) in f.filename)
        if place in self.places:
            return
        self.places.add(place)
        path = self._folder / f"{hashlib.sha256(data).hexdigest()[:16]}.input"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))


def _of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, however it was reported."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _loop(target: Any, watch: _Watch, seconds: int, seed: int) -> None:
    """Mutations of the seeds."""
    chosen, seeds, begun = random.Random(seed), target.seeds(), time.monotonic()
    for data in seeds:
        watch(data)
    if watch.refused:
        raise AssertionError("a seed is refused: it should be a good file")
    while time.monotonic() - begun < seconds if seconds else watch.count < INPUTS:
        data = chosen.choice(seeds)
        for _ in range(chosen.choice((1, 1, 1, 2, 4))):
            data = target.mutated(data, chosen)
        if len(data) <= LARGEST:
            watch(data)


def _guided(atheris: Any, target: Any, watch: _Watch, seconds: int, seed: int, folder: Path) -> None:
    """The same, guided by coverage: inputs that reach new code are mutated further."""
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for data in target.seeds():
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

    def mutated(data: bytes, largest: int, seed: int) -> bytes:
        return target.mutated(bytes(data), random.Random(seed))[:largest]

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LARGEST}",
        f"-seed={seed + 1}",
        "-rss_limit_mb=0",
        "-timeout=86400",
    ]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)],
        lambda data: watch(data) and None,
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def main(module: str, files: list[str]) -> None:
    seconds, seed = int(os.environ.get("FUZZ_SECONDS", "0")), int(os.environ.get("FUZZ_SEED", "0"))
    atheris: Any = None
    with contextlib.suppress(ImportError):
        atheris = importlib.import_module("atheris") if seconds else None
    logging.disable()
    with atheris.instrument_imports(include=["torch_towers", "porting"]) if atheris else contextlib.nullcontext():
        target = importlib.import_module(module)
        target.seeds()
    folder = FINDINGS / module.rpartition(".")[2].removeprefix("test_")
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.register(signal.SIGPROF, chain=True)
    watch = _Watch(target, folder)
    if files:
        for file in files:
            print(file, json.dumps(watch(Path(file).read_bytes())), sep="\t", flush=True)
    elif atheris is None:
        _loop(target, watch, seconds, seed)
    else:
        _guided(atheris, target, watch, seconds, seed, folder)
    print(f"{module}: {watch.count} inputs, {watch.refused} refused, {len(watch.places)} findings")
    sys.exit(bool(watch.places))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
