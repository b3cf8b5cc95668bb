"""The command: help, errors, interrupts, commands of other packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from torch_towers import cli

ROOT = Path(__file__).parents[2]


def test_help_without_torch() -> None:
    code = (
        "import sys; from torch_towers.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as error: assert error.code == 0\n"
        "sys.exit(str({'torch', 'numpy', 'pyarrow', 'porting'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == ""
    for name in ("embed", "search", "similarity", "info", "verify"):
        assert name in done.stdout


@pytest.mark.parametrize("command", ["embed", "search", "similarity", "info", "verify"])
def test_help_of_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert "CHECKPOINT" in capsys.readouterr().out


def test_commands_of_other_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert found["scripts"]["torch-towers"] == "torch_towers.cli:main"
    points = [EntryPoint(name, value, cli.GROUP) for name, value in found["entry-points"][cli.GROUP].items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: points if group == cli.GROUP else [])
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "turn TensorFlow SavedModels into a checkpoint" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["port", "--help"])
    assert "--candidate-signature" in capsys.readouterr().out
    assert cli.main(["port"]) == 2


def test_no_checkpoint(tmp_path: Path, items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["info"],
        ["verify"],
        ["search", "--query", "a", "--index", "x"],
        ["embed", "--input", str(items), "--output", "o"],
    ):
        assert cli.main([arguments[0], str(tmp_path / "none"), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("torch-towers: ") and "none" in error and "Traceback" not in error


def test_a_device_that_is_not_here(checkpoint: Path, items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("cuda:77", "no such device"):
        for command in (
            ["search", "--query", "a", "--index", "x"],
            ["embed", "--input", str(items), "--output", "o", "--tower", "query"],
        ):
            assert cli.main([command[0], str(checkpoint), *command[1:], "--device", device]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"torch-towers: the device {device!r} cannot be used on this machine: ")
            assert error.count("\n") == 1


@pytest.mark.parametrize("command, said", [
    (["embed", "{checkpoint}"], "interrupted; run the same command to resume"), (["info", "{checkpoint}"], "interrupted"),
    (["port"], "interrupted"),
])  # fmt: skip
def test_an_interrupt_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str], said: str
) -> None:
    def interrupted(given: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(command) == 130
    assert capsys.readouterr().err == f"torch-towers: {said}\n"


def test_a_command_whose_package_is_broken_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_added", lambda: {"other": EntryPoint("other", "no_such_module:main", cli.GROUP)})
    assert cli.main(["other"]) == 2
    assert capsys.readouterr().err == "torch-towers: No module named 'no_such_module'\n"
