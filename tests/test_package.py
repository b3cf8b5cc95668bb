"""Package metadata: the version has one source, and CI runs the declared Python versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import torch_towers

ROOT = Path(__file__).parents[1]


def test_the_version_stands_in_one_place() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found["project"]["dynamic"] == ["version"]
    assert "version" not in found["project"]
    assert found["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "torch_towers.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", torch_towers.__version__)


def test_ci_runs_the_pythons_that_the_package_names() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(named))
    tests = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    wheels = (ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    assert re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", tests)[0]) == versions  # type: ignore[index]
    assert re.findall(r"cp3(\d+)-", wheels) == [version[2:] for version in versions]
