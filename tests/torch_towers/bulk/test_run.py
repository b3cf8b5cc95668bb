"""Jobs that are killed, resumed, run twice at once and watched."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.torch_towers.bulk.jobs import files_of, job, rows, write
from torch_towers.bulk import BulkError, Job, Output, run
from torch_towers.bulk.write import WRITERS


def _child(text: str, steps: int) -> None:
    """Runs a job, and dies by SIGKILL at the `steps`-th step that a kill could fall between."""
    from torch_towers.bulk import worker

    left = [steps]

    def dying(function: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return step

    for name in ("replace", "fsync", "truncate"):
        setattr(os, name, dying(getattr(os, name)))
    worker.Worker.embed = dying(worker.Worker.embed)  # type: ignore[method-assign]
    Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]
    run(Job.from_json(text))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", ["i.parquet", "i.csv", "i.jsonl"])
def test_killed_at_random_and_resumed(checkpoint: Path, tmp_path: Path, form: Any, name: str) -> None:
    if name != "i.parquet" and form not in ("parquet", "npy"):
        pytest.skip("what is written does not depend on what was read")
    table: list[dict[str, Any]] = rows(60)
    path = write(tmp_path / name, table)
    whole = job(checkpoint, path, tmp_path / "whole", output=Output(form), on_error="skip")
    run(whole)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch_towers.bulk", "pyarrow.parquet", "pyarrow.csv", __name__])
    choose, kills = random.Random(f"{form}{name}"), 0
    broken = replace(whole, folder=str(tmp_path / "out"))
    for _ in range(100):
        child = processes.Process(
            target=_child, args=(broken.to_json(), choose.randint(1, 25) if kills < 5 else 1 << 30)
        )
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    else:
        pytest.fail("it never came to its end")
    assert kills >= 2
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "out.job" / "manifest.jsonl").read_text().splitlines()]
    parts = [tuple(line["part"]) for line in lines if "part" in line]
    assert sorted(parts) == [(0, i) for i in range(5)] and lines[-1] == {"done": True}
    assert not list((tmp_path / "out.job").glob("part-*"))


def test_an_output_that_is_a_file(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", rows(5))
    for folder in (path, path / "x"):
        with pytest.raises(BulkError, match="the output is a folder"):
            run(job(checkpoint, path, folder))


def test_two_processes_do_not_run_one_job(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from torch_towers.bulk.manifest import Manifest

    this = job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out")
    with Manifest(this), pytest.raises(BulkError, match="another process is running this job"):
        run(this)
    assert run(this).rows == 5


def test_progress(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(job(checkpoint, write(tmp_path / "i.jsonl", rows(30)), tmp_path / "out"), show_progress=True)
    shown = capsys.readouterr().err
    assert "embed" in shown and "30.0" in shown and "rows/s" in shown
