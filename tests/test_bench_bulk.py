"""A small `make bench-bulk`: every command on generated rows, killed at random and resumed, and Ray's bytes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("fastavro")

from benchmarks import bulk

linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads the memory of processes from /proc")


@linux
@pytest.mark.slow
def test_every_command_on_generated_rows(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    assert bulk.main(["--rows", "5000", "--kills", "1", "--no-ray", "--json", str(numbers)]) == 0
    steps = {step["name"]: step for step in json.loads(numbers.read_text())}
    assert len(steps) == 13 and all(step["good"] and step["seconds"] > 0 for step in steps.values())
    killed = [step for step in steps.values() if step["kills"]]
    assert len(killed) == 4
    assert all(100 < step["memory_mb"] < bulk.LIMIT_MB for step in steps.values())


def test_a_row_that_is_lost_or_twice_is_seen(tmp_path: Path) -> None:
    """The benchmark's own checks can fail."""
    bench = bulk.Bench(tmp_path, bulk.CHECKPOINT, 10, 0, 0)
    good = bulk.ids(0, 10)
    assert bench.in_order(good)
    for wrong in (good[:-1], [*good, good[-1]], [*good[:4], good[3], *good[5:]], good[::-1]):
        assert not bench.in_order(wrong)
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "a").write_bytes(b"1")
    assert bulk.same_files(one, other)
    (other / "a").write_bytes(b"2")
    assert not bulk.same_files(one, other)
    (other / "a").write_bytes(b"1")
    (other / "b").touch()
    assert not bulk.same_files(one, other)
    assert not bulk.same_vector([0.1, 0.2], np.array([0.1, 0.3], np.float32))


def test_the_best_must_be_the_best(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).standard_normal((1, 30)).astype(np.float32)
    order = np.argsort(-scores[0])
    shown = tmp_path / "shown"

    def told(rows: list[int], wanted: int = 10) -> bool:
        hits = [{"id": f"sku-{row:09d}", "score": float(scores[0, row])} for row in rows]
        shown.write_text(json.dumps({"query": "q", "results": hits[:wanted]}) + "\n")
        return bulk.best_are(shown, scores)

    assert told(order.tolist())
    assert not told(order.tolist(), 9)
    assert not told([*order[:9].tolist(), int(order[11])])


@linux
def test_memory_over_the_limit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    step = bulk.Step("a", 10, 1.0, 100.0)
    assert step.good and not replace(step, memory_mb=bulk.LIMIT_MB).good and not replace(step, right=False).good
    assert replace(step, memory_mb=bulk.LIMIT_MB, limited=False).good
    assert "over the limit" in bulk.row_of(replace(step, memory_mb=bulk.LIMIT_MB))
    assert bulk.status(os.getpid())["VmHWM"] > 20 and bulk.together(os.getpid()) > 20
