"""Starts and ends TensorFlow's process; `porting.parity.oracle` is its client.

A separate module without heavy imports: the command starts TensorFlow first, which takes seconds to import, and then
imports the porter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


SECONDS = 1800.0
"""For one answer of TensorFlow, the import included. The largest models known take minutes."""


class Limits(NamedTuple):
    """What TensorFlow may take: `seconds` of the clock for one answer, and `memory` in bytes (None: 80% of the machine's)."""

    seconds: float = SECONDS
    memory: int | None = None


LIMITS = Limits()


def tensorflow_installed() -> bool:
    """Whether a separate process could import TensorFlow."""
    return importlib.util.find_spec("tensorflow") is not None


_OUT_OF_MEMORY = ("bad_alloc", "MemoryError")


def _most_memory() -> int:
    """The bytes that TensorFlow may take by default: what it takes beyond them would stop the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 4 // 5 if hasattr(os, "sysconf") else 0


class TensorFlowProcess:
    """A process that imports TensorFlow and waits for requests, one per line. Use it in a `with` statement.

    `onednn`: with oneDNN, as pip installs it on x86. `limits`: it is ended when it takes more. `folder` is where arrays are
    exchanged.
    """

    def __init__(self, *, onednn: bool = True, limits: Limits = LIMITS) -> None:
        self.onednn, self.limits = onednn, limits
        self._is_late = False
        self._folder = tempfile.TemporaryDirectory(prefix="torch-towers-oracle-")
        self.folder = Path(self._folder.name)
        self._log = open(self.folder / "log", "w+b")  # noqa: SIM115  closed in __exit__
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "porting.parity.tensorflow_process", str(limits.memory or _most_memory())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **_ENVIRONMENT, "TF_ENABLE_ONEDNN_OPTS": str(int(onednn)), "PYTHONPATH": path},
        )  # fmt: skip

    def __enter__(self) -> TensorFlowProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # all requests are answered, and an orderly shutdown of TensorFlow takes seconds
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the last request may be unsent
            self._process.stdin.close()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def ask(self, line: str) -> str:
        """The answer to `line`; empty if the process has ended, or had to be ended: `why_ended` says why."""
        assert self._process.stdin is not None and self._process.stdout is not None
        timer = threading.Timer(self.limits.seconds, self._end)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            timer.cancel()

    def _end(self) -> None:
        self._is_late = True
        self._process.kill()

    def why_ended(self) -> str:
        """Why there is no answer: a limit and the option that raises it, or the last line that the process printed."""
        if self._is_late:
            return (
                f"TensorFlow gave no answer within {self.limits.seconds:g} seconds, so its process was ended: if you trust "
                "the SavedModel, raise the limit with --max-tensorflow-seconds, or port without a comparison (--no-verify)"
            )
        words = self._last_words()
        if any(said in words for said in _OUT_OF_MEMORY):
            words += f"; it may take {self.limits.memory or _most_memory()} bytes, which --max-tensorflow-bytes raises"
        return f"TensorFlow's process ended without an answer: {words}"

    def _last_words(self) -> str:
        """The last line that it printed besides its answers."""
        self._log.flush()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
