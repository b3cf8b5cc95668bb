"""Every command and output in the README is tested."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from porting.parity.process import tensorflow_installed

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ ((?:python|torch-towers) .*?)\n(.*?)(?=^\$ |^```)", README, re.MULTILINE | re.DOTALL)


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=flags)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize(("command", "answer"), COMMANDS, ids=[command[:40] for command, _ in COMMANDS])
def test_command(command: str, answer: str, tmp_path: Path) -> None:
    if "-o " in command and not tensorflow_installed():
        pytest.skip(
            "the answer shows the comparison with TensorFlow, which is not installed: install the extra [parity]"
        )
    command = command.replace("-o checkpoints/packages", f"-o {tmp_path / 'packages'}")
    program, *arguments = shlex.split(command)
    start = [sys.executable] if program == "python" else [sys.executable, "-m", "torch_towers.cli"]
    done = subprocess.run(
        [*start, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    expected = answer.replace("checkpoints/packages", str(tmp_path / "packages")) if "-o " in command else answer
    assert doctest.OutputChecker().check_output(expected, done.stdout, doctest.ELLIPSIS), done.stdout


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\$ make (\w[\w-]*)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_and_paths_exist() -> None:
    for path in re.findall(r"\]\(([\w/.-]+)", README) + re.findall(r"^\| `([\w/]+)`", README, re.MULTILINE):
        assert (ROOT / path).exists(), path
