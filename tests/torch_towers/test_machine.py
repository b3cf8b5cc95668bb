"""OpenMP settings made before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_towers import machine

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    """What `code` prints in a fresh process, without OpenMP's variables but those that are given."""
    kept = {name: value for name, value in os.environ.items() if name not in (*machine.WAITING, "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**kept, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"


def test_threads_sleep_where_the_library_is_imported_first() -> None:
    assert python(f"import torch_towers; {SHOW}") == "PASSIVE"
    assert python(f"import torch_towers.kernels.threads; {SHOW}") == "None"  # torch has read it; no child inherits it
    shown = "import torch_towers.kernels.threads"  # what OpenMP itself says, at its start
    done = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_DISPLAY_ENV": "TRUE"},
    )
    if "OMP_WAIT_POLICY" in done.stderr:  # GNU's and LLVM's both print it
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_what_the_user_said_stays() -> None:
    assert python(f"import torch_towers; {SHOW}", OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"
    assert python(f"import torch_towers; {SHOW}", GOMP_SPINCOUNT="100") == "None"
    assert python(f"import torch, torch_towers; {SHOW}") == "None"
    assert (
        python("import torch_towers.kernels.threads, torch; print(torch.get_num_threads())", OMP_NUM_THREADS="1") == "1"
    )


def test_the_quota_gives_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", *machine.WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(machine, "_processors", lambda: 8)
    for allowed, wanted in ((None, None), (8.0, None), (2.5, "2"), (0.5, "1")):
        monkeypatch.setattr(machine, "quota", lambda allowed=allowed: allowed)
        machine.prepare()
        assert os.environ.get("OMP_NUM_THREADS") == wanted
        machine.restore()
        assert "OMP_NUM_THREADS" not in os.environ and "OMP_WAIT_POLICY" not in os.environ


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_quotas_of_both_kinds_of_control_groups(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("0::/pod/container\n")
    group(root, "pod/container", cpu__max="max 100000\n")
    assert machine.quota(root, own) is None
    group(root, "pod", cpu__max="150000 100000\n")  # a limit above counts as well
    assert machine.quota(root, own) == 1.5
    group(root, "pod/container", cpu__max="50000 100000\n")
    assert machine.quota(root, own) == 0.5
    own.write_text("5:memory:/x\n3:cpu,cpuacct:/job\n")
    group(root, "cpu,cpuacct/job", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert machine.quota(root, own) is None
    group(root, "cpu,cpuacct/job", cpu__cfs_quota_us="400000\n", cpu__cfs_period_us="100000\n")
    assert machine.quota(root, own) == 4.0
    own.write_text("3:cpu:/elsewhere\n")  # a container sees its own group as the root
    group(root, "cpu", cpu__cfs_quota_us="200000\n", cpu__cfs_period_us="100000\n")
    assert machine.quota(root, own) == 2.0
    assert machine.quota(root, tmp_path / "none") is None
