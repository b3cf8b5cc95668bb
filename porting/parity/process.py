"""TensorFlow's process as it is started and ended; `porting.parity.oracle` asks it.

Apart, since nothing large is imported here: the command starts TensorFlow first, which imports for seconds, and then itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def tensorflow_installed() -> bool:
    """Whether a process of its own could import TensorFlow."""
    return importlib.util.find_spec("tensorflow") is not None


class TensorFlowProcess:
    """A process that imports TensorFlow and waits for questions, a line each. Use it in a `with` statement.

    `onednn`: with oneDNN, as pip installs it on x86. `folder` is where arrays are handed over.
    """

    def __init__(self, *, onednn: bool = True) -> None:
        self.onednn = onednn
        self._folder = tempfile.TemporaryDirectory(prefix="torch-towers-oracle-")
        self.folder = Path(self._folder.name)
        self._log = open(self.folder / "log", "w+b")  # noqa: SIM115  closed in __exit__
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "porting.parity.tensorflow_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **_ENVIRONMENT, "TF_ENABLE_ONEDNN_OPTS": str(int(onednn)), "PYTHONPATH": path},
        )  # fmt: skip

    def __enter__(self) -> TensorFlowProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # all that was asked is answered, and to take TensorFlow down in good order takes seconds
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it was asked last may be unsent
            self._process.stdin.close()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def ask(self, line: str) -> str:
        """The line that answers `line`; empty where the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except BrokenPipeError:
            return ""

    def last_words(self) -> str:
        """The last line that it printed beside its answers."""
        self._log.flush()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
