"""Imports: nothing heavy, and the garbage collector's state unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
        "print(sorted({'torch', 'numpy', 'torch_towers.graph.registry'} & set(sys.modules)))"
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


def test_no_collection_while_importing_and_none_of_what_was_imported_soon_after() -> None:
    printed = python(
        "import gc, sys, torch_towers\n"
        "done = lambda: hasattr(sys.modules.get('torch_towers.two_tower'), 'load')\n"
        "early = []\n"
        "gc.callbacks.append(lambda phase, info: done() or early.append(info['generation']))\n"
        "torch_towers.load\n"
        "young = len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1))\n"
        "print(done(), early, young < 1000, len(gc.get_objects(generation=2)) > 50000)"
    )
    assert printed == "True [] True True\n"


def test_the_collector_works_on_as_before() -> None:
    """Its settings stay, what was frozen stays frozen, garbage of the caller is found, and nothing is frozen."""
    printed = python(
        "import gc, weakref, torch, torch_towers\n"
        "class Node: pass\n"
        "node = Node(); node.self = node; seen = weakref.ref(node); del node\n"
        "gc.set_threshold(500, 5, 5)\n"
        "torch_towers.load\n"
        "print(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())\n"
        "gc.collect()\n"
        "print(seen())"
    )
    assert printed == "True (500, 5, 5) 0\nNone\n"


def test_what_was_frozen_stays_frozen() -> None:
    printed = python(
        "import gc, torch, torch_towers\n"
        "gc.freeze(); before = gc.get_freeze_count()\n"
        "torch_towers.load\n"
        "print(before > 1000, gc.get_freeze_count() > 0.9 * before, gc.isenabled())"
    )
    assert printed == "True True True\n"


def test_a_collector_that_is_off_stays_off_also_where_the_import_fails() -> None:
    printed = python(
        "import gc, sys, torch_towers\n"
        "sys.modules['torch'] = None\n"  # what makes `import torch` fail
        "for switch in (gc.enable, gc.disable):\n"
        "    switch(); before = gc.isenabled()\n"
        "    try: torch_towers.load\n"
        "    except ImportError: print(gc.isenabled() is before)\n"
        "    for name in [name for name in sys.modules if name.startswith('torch_towers.')]: del sys.modules[name]\n"
    )
    assert printed == "True\nTrue\n"
