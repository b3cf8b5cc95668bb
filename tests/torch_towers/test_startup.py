"""What an import brings along: nothing heavy, and the garbage collector as it was."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import torch_towers
from torch_towers.two_tower import TwoTower

from .towers import id_tower, word_tower

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch._dynamo", "torch._inductor", "torch.onnx", "torch.ao.quantization", "numpy.testing", "sympy", "networkx", "triton",
    "scipy", "pandas", "pyarrow", "tensorflow", "porting", "google", "sentencepiece", "faiss", "PIL", "simplejpeg", "tqdm",
    "ray", "rich", "encodings.cp1250",
}  # fmt: skip


def python(code: str) -> str:
    """What `code` prints in a fresh process."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_alone_imports_no_torch() -> None:
    loaded = python(
        "import sys, torch_towers; torch_towers.CheckpointError, dir(torch_towers)\n"
        "print(sorted({'torch', 'numpy', 'torch_towers.registry'} & set(sys.modules)))"
    )
    assert loaded == "[]\n"


def test_import_load_and_first_call_bring_nothing_heavy(tmp_path: Path) -> None:
    TwoTower(word_tower(), id_tower()).save(tmp_path / "towers")
    loaded = python(
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "from torch_towers import layers, load, ops\n"
        "assert 'torch_towers.ops.unicode' in sys.modules and 'torch_towers.layers.text' in sys.modules\n"
        f"towers = load({str(tmp_path / 'towers')!r})\n"
        "towers.encode_query({'word': ['red'], 'size': [1.0]}, convert_to_numpy=True)\n"
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert "torch_towers.two_tower" in loaded
    assert [name for name in loaded if name in HEAVY or name.partition(".")[0] in HEAVY] == []


@pytest.mark.parametrize("command", ["embed", "search", "similarity", "info", "verify", "port"])
def test_help_of_a_command_without_torch(command: str) -> None:
    printed = python(
        "import sys; from torch_towers.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as error: assert error.code == 0\n"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'tensorflow'} & set(sys.modules)))"
    )
    assert "usage: " in printed
    assert printed.endswith("[]\n")


def test_no_collection_while_importing() -> None:
    printed = python(
        "import gc, sys, torch, torch_towers\n"
        "gc.set_threshold(500, 5, 5)\n"
        "done = lambda: hasattr(sys.modules.get('torch_towers.two_tower'), 'load')\n"
        "early = []\n"
        "gc.callbacks.append(lambda phase, info: done() or early.append(info['generation']))\n"
        "torch_towers._imported('two_tower')\n"
        "print(done(), early, gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())"
    )
    assert printed == "True [] True (500, 5, 5) 0\n"


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool, collecting: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def importing(name: str) -> object:
        seen.append(gc.isenabled())
        if name.endswith(".registry"):
            return importlib
        raise ImportError(name)

    monkeypatch.setattr("torch_towers.importlib.import_module", importing)
    (gc.enable if enabled else gc.disable)()
    assert torch_towers._imported("registry") is importlib
    assert gc.isenabled() is enabled
    with pytest.raises(ImportError, match="nothing"):
        torch_towers._imported("nothing")
    assert gc.isenabled() is enabled
    assert seen == [False, False]
