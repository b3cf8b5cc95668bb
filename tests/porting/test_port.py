"""The command, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_towers
from porting.port import main

tf: Any = pytest.importorskip(
    "tensorflow", reason="these tests build SavedModels with TensorFlow: install the extra [parity]"
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to port"),
        (["--query", "nowhere", "-o", "out"], "nowhere"),
        (["--query", "{towers}", "-o", "{out}"], "candidate, query"),
        (["--query", "{towers}", "--signature", "qery", "-o", "{out}"], "'qery'"),
        (["--query", "{towers}", "--signature", "query"], "give -o OUT"),
        (["--query", "{towers}", "--signature", "query", "-o", "{out}", "--query-output", "nope"], "no output 'nope'"),
        (
            ["--query", "{towers}", "--signature", "query", "-o", "{out}", "--inputs", "nope.npz"],
            "nope.npz: no such file",
        ),
        (["--query", "{towers}", "--signature", "query", "-o", "{out}", "--reference", "nope.npz"], "nope.npz"),
        (["--inspect", "{towers}/saved_model.pb"], "saved_model.pb"),
    ],
)
def test_wrong_use_ends_in_one_sentence(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert main([part.format(towers=towers, out=out) for part in arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not out.exists()


def pickled(path: Path) -> Path:
    np.savez(path, word=np.array(["a", None], object))
    return path


@pytest.mark.parametrize("option", ["--inputs", "--reference", "--query-reference"])
@pytest.mark.parametrize("content, message", [
    (None, "no such file"), (b"", ""), (b"{", "line 1: not JSON|not a .npz"), (b"\xff\xfe", "line 1: not JSON|not a .npz"), (b"[" * 100_000, "line 1: not JSON|not a .npz"),
    (b"PK\x03\x04 cut", "line 1: not JSON|not a .npz"), ("objects", "'word': holds Python objects"),
])  # fmt: skip
@pytest.mark.parametrize("compared", [True, False])
def test_files_that_cannot_be_read_are_errors_always(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    option: str, content: Any, message: str, compared: bool,
) -> None:  # fmt: skip
    """Also where there is nothing to compare with."""
    path = tmp_path / "given.npz"
    if content == "objects":
        pickled(path)
    elif content is not None:
        path.write_bytes(content)
    if not compared:
        monkeypatch.setattr("porting.port.tensorflow_installed", lambda: False)
    out = tmp_path / "out"
    assert main(["--query", str(towers), "--signature", "query", "-o", str(out), option, str(path), "--no-verify"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and re.search(message, error) and error.count("\n") == 1
    assert not out.exists()


def test_the_place_is_looked_at_before_the_work(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*given: Any, **options: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("porting.command.read", no_work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "bert"}')
    for out, said in (
        ("mine", "holds 'config.json'"),
        ("gs://bucket/towers", "gs://bucket/towers: object stores are not supported"),
    ):
        assert main(["--query", str(towers), "--signature", "query", "-o", out]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "config.json"]


def test_an_interrupt_ends_in_one_line(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("porting.command.read", interrupted)
    assert main(["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "port.py: interrupted; nothing was put in place\n"


@pytest.mark.parametrize("package, name", [("google", "protobuf"), ("crc32c", "crc32c")])
def test_without_the_extra_the_command_says_so(towers: Path, tmp_path: Path, package: str, name: str) -> None:
    """As `torch-towers port` from a wheel without [port]."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; from torch_towers.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    runner = f"import sys; sys.modules[{package!r}] = None; from porting.port import main; sys.exit(main(sys.argv[1:]))"
    command = ["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "out")]
    for said, given in ((code, ["port", *command]), (runner, command)):
        done = subprocess.run([sys.executable, "-c", said, *given], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2
        assert done.stderr.endswith(
            f": {name} is needed for this and is not installed: pip install 'torch-towers[port]'\n"
        )
        assert done.stderr.count("\n") == 1


def test_inspect(towers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inspect", str(towers)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "signature query",
        "in   word: string [?]",
        "words",
        "float32 [4, 4]",
        "string -> int64, 3 entries",
        "all supported",
    ):
        assert part in printed
    assert main(["--inspect", str(towers), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signatures"]["candidate"]["inputs"]["features"]["shape"] == [None, 3]


def test_all_missing_ops_are_listed_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(x: Any) -> Any:
        return tf.math.special.dawsn(tf.math.betainc(x, x, x)) + tf.math.betainc(x, x, x)

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    assert main(["--query", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert "2 ops have no converter: Betainc (x2), Dawsn (x1)" in printed
    assert "first use: " in printed


def save_table(path: Path, rows: int, columns: int) -> None:
    module = tf.Module()
    module.table = tf.Variable(tf.zeros([rows, columns]), name="table")
    signature = [tf.TensorSpec([None], tf.int64, "ids")]
    tf.saved_model.save(
        module, str(path), tf.function(lambda ids: tf.gather(module.table, ids), input_signature=signature)
    )


def test_as_a_script_and_memory(tmp_path: Path) -> None:
    """A table of 512 MB ports within 1.3 times its size above the imports, verification aside."""
    rows, columns = 1 << 20, 1 << 7
    size = rows * columns * 4
    save_table(tmp_path / "model", rows, columns)
    measure = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )

    def peak(*arguments: str) -> int:
        command = [sys.executable, "-c", measure, sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""}
        )
        code, kilobytes = done.stdout.split()[-2:]
        assert code == "0", done.stderr
        return int(kilobytes) * 1024

    imports = peak("porting/port.py", "--help")
    torch_imported = peak("-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import porting.command")  # fmt: skip
    whole = peak("porting/port.py", "--query", str(tmp_path / "model"), "-o", str(tmp_path / "out"), "--no-verify")
    assert whole - max(imports, torch_imported) < 1.3 * size
    assert torch.equal(torch_towers.load(tmp_path / "out").encode_query([3]), torch.zeros(1, columns))
