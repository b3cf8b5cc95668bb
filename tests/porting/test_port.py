"""The command, as a user types it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_towers
from porting.errors import PortingError
from porting.parity.oracle import Oracle, OracleError
from porting.parity.process import TensorFlowProcess
from porting.port import main

tf: Any = pytest.importorskip(
    "tensorflow", reason="these tests build SavedModels with TensorFlow: install the extra [parity]"
)
ROOT = Path(__file__).resolve().parents[2]
DIM = 4


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One SavedModel with the signatures `query` and `candidate`, and a variable that neither uses."""

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            keys, values = tf.constant(["a", "b", "c"]), tf.constant([1, 2, 3], tf.int64)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)
            self.words = tf.Variable(np.random.default_rng(0).normal(size=(4, DIM)).astype(np.float32), name="words")
            self.kernel = tf.Variable(np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32), name="kernel")
            self.spare = tf.Variable(np.zeros(256, np.float32), name="spare")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
        def query(self, word: Any) -> dict[str, Any]:
            return {"embedding": tf.gather(self.words, self.table.lookup(word)), "id": self.table.lookup(word)}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "features")])
        def candidate(self, features: Any) -> dict[str, Any]:
            return {"embedding": tf.tanh(features @ self.kernel)}

    path = tmp_path_factory.mktemp("models") / "towers"
    model = Model()
    tf.saved_model.save(model, str(path), signatures={"query": model.query, "candidate": model.candidate})
    return path


def both(towers: Path, out: Path, *more: str) -> list[str]:
    sides = [
        "--query",
        str(towers),
        "--query-signature",
        "query",
        "--candidate",
        str(towers),
        "--candidate-signature",
        "candidate",
    ]
    return [*sides, "-o", str(out), *more]


def test_two_signatures_of_one_saved_model(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ported"
    assert main(both(towers, out, "--explain")) == 0
    printed = capsys.readouterr().out
    assert "similarity: dot (auto)" in printed
    assert "ok   embedding: RMS error" in printed
    assert "int64 values equal to the bit" in printed
    assert "left out" in printed
    assert "'spare' [256] float32" in printed
    ported = torch_towers.load(out)
    assert ported.encode_query(["a", "zebra"]).shape == (2, DIM)
    assert ported.encode_candidate({"features": np.ones((5, 3))}).shape == (5, DIM)
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors", "parity.json", "MODEL.md"}
    parity = json.loads((out / "parity.json").read_text())
    assert parity["query"]["passed"]
    assert parity["query"]["outputs"]["embedding"]["ratio"] <= 1.25


def test_json(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(both(towers, tmp_path / "ported", "--json", "--no-verify", "--similarity", "cosine")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["similarity"] == "cosine"
    assert found["towers"]["query"]["parity"]["compared_with"] == "nothing"
    assert found["towers"]["query"]["lifted"]


def test_what_was_not_compared_is_said(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "ported"), "--no-verify"]) == 0
    assert "not compared: --no-verify was given" in capsys.readouterr().out
    assert json.loads((tmp_path / "ported" / "parity.json").read_text())["query"]["compared_with"] == "nothing"


def test_where_tensorflow_is_absent_the_report_says_that_nothing_was_compared(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("porting.port.tensorflow_installed", lambda: False)
    assert main(["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "ported")]) == 0
    assert "not compared: TensorFlow is not installed here" in capsys.readouterr().out
    parity = json.loads((tmp_path / "ported" / "parity.json").read_text())
    assert "TensorFlow is not installed" in parity["query"]["why_not"]


def test_what_tensorflow_cannot_load_is_ported_without_evidence(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise OracleError("TensorFlow could not run it: NotFoundError: no file")

    monkeypatch.setattr(Oracle, "run", run)
    out = tmp_path / "ported"
    assert main(["--query", str(towers), "--signature", "query", "-o", str(out)]) == 3
    assert json.loads((out / "parity.json").read_text())["query"]["verdict"] == "not enough evidence"
    printed = capsys.readouterr().out
    assert "not compared: TensorFlow could not run it: NotFoundError: no file" in printed
    assert "give recorded answers with --reference" in printed


def test_recorded_answers_decide(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = np.array([b"a", b"c", b"x"])
    table = tf.saved_model.load(str(towers)).signatures["query"](word=tf.constant(words))
    recorded = {"query|in|word": words, **{f"query|out|{name}": value.numpy() for name, value in table.items()}}
    good, bad, out = tmp_path / "good.npz", tmp_path / "bad.npz", tmp_path / "ported"
    np.savez(good, **recorded)
    np.savez(bad, **{**recorded, "query|out|id": recorded["query|out|id"] + 1})
    arguments = ["--query", str(towers), "--signature", "query", "-o", str(out), "--reference"]
    assert main([*arguments, str(bad)]) == 1
    assert not out.exists()
    assert "FAIL id: 0 of 3" in capsys.readouterr().out
    assert main([*arguments, str(bad), "--keep"]) == 1
    assert not out.exists()
    kept = tmp_path / "ported.unequal"
    assert "is NOT equal to TensorFlow" in (kept / "MODEL.md").read_text()
    assert json.loads((kept / "parity.json").read_text())["query"]["verdict"] == "unequal"
    assert "NOT equal to TensorFlow: kept to be looked at" in (kept / "report.html").read_text()
    assert main([*arguments, str(good)]) == 0
    assert out.is_dir()
    assert main([*arguments, str(bad)]) == 1  # the checkpoint that was there stays
    assert torch_towers.load(out).encode_query(["a"]).shape == (1, DIM)


@pytest.mark.parametrize("form", ["npz", "jsonl"])
def test_examples_of_the_user(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    examples = tmp_path / f"examples.{form}"
    if form == "npz":
        np.savez(examples, word=np.array(["a", "b", "ü"]))
    else:
        examples.write_text('{"word": "a"}\n{"word": "b"}\n{"word": "ü"}\n', encoding="utf-8")
    arguments = [
        "--query",
        str(towers),
        "--signature",
        "query",
        "-o",
        str(tmp_path / "ported"),
        "--inputs",
        str(examples),
    ]
    assert main(arguments) == 0
    assert "on 3 rows in 1 batches" in capsys.readouterr().out


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
        ("gs://bucket/towers", "gs://bucket/towers: stores are not supported"),
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
