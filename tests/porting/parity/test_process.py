"""TensorFlow's process: begun before the work, only where it is asked, and ended."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from porting.parity.oracle import Oracle
from porting.parity.process import Limits, TensorFlowProcess, tensorflow_installed
from porting.port import main
from tests.porting.graphs import const, node, save


def test_a_process_that_takes_too_long_is_ended() -> None:
    with Oracle(limits=Limits(seconds=0.05)) as slow:
        for _ in range(2):
            with pytest.raises(PortingError, match=r"no answer within 0.05 seconds.* --max-tensorflow-seconds"):
                slow.run("model", (), "serving_default", [{"x": np.zeros(1)}])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit it")
@pytest.mark.skipif(not tensorflow_installed(), reason="TensorFlow is not installed")
def test_a_process_may_not_take_all_memory(tmp_path: Path) -> None:
    size = 1 << 33
    nodes = [
        const("n", np.int32([size >> 4, 16])), const("axis", np.int32(0)), const("axes", np.int32([0, 1])),
        node("one", "Sum", "x", "axis", T="float32", Tidx="int32"),
        node("fill", "Fill", "n", "one", T="float32", index_type="int32"),
        node("y", "Max", "fill", "axes", T="float32", Tidx="int32"),
    ]  # fmt: skip
    save(tmp_path, nodes, {"y": ("float32", "y:0")})
    with Oracle(limits=Limits(memory=6 << 30)) as small:
        try:
            (said,) = small.run(tmp_path, ("serve",), "serving_default", [{"x": np.zeros(1, np.float32)}])
        except PortingError as error:
            said = str(error)
    assert "OOM when allocating tensor" in said or "--max-tensorflow-bytes" in said, said


@pytest.mark.parametrize("more, started", [([], ["process", "read"]), (["--no-verify"], ["read"])])
def test_tensorflow_starts_first_and_only_where_it_is_asked(
    towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], started: list[str]
) -> None:
    """It imports for seconds, which pass while the tower is read and ported. What nobody asked is not waited for."""
    events: list[str] = []
    processes: list[Any] = []

    class Watched(TensorFlowProcess):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            events.append("process")
            processes.append(self._process)

    def unreadable(*given: Any, **options: Any) -> Any:
        events.append("read")
        raise PortingError("it cannot be read")

    monkeypatch.setattr("porting.port.TensorFlowProcess", Watched)
    monkeypatch.setattr("porting.command.read", unreadable)
    assert main(["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "out"), *more]) == 2
    assert events == started
    assert all(process.returncode == -signal.SIGKILL for process in processes)
