"""SentencePiece ids in padded rows are one layer, whose ids need no checks and no casts there and back; TensorFlow's ids to the bit."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion.values import Value
from porting.lifting.lift import lift
from porting.saved_model import read
from porting.tower import port_tower
from tests.porting.converters.test_text import text
from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.program.program import Program

spm: Any = pytest.importorskip("sentencepiece")

TEXTS = [b"edit photos", b"", b"  two  spaces ", b"\xff\xfe broken \xc3", "café 你好 ~~".encode(), b"x" * 300, b"edit"]
Function = Callable[[Any, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def model() -> bytes:
    trained = BytesIO()
    lines = iter(["edit photos and play chess", "two spaces", "café with friends", "a small model of words"] * 20)
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=trained, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    return trained.getvalue()


def ported(folder: Path, tokenizer: Any, function: Function) -> tuple[Any, Any]:
    """What TensorFlow runs, and the tower."""
    module = tf.Module()
    module.tokenizer = tokenizer
    module.table = tf.Variable(tf.random.stateless_normal([400, 4], [1, 2]), name="table")
    specs = [tf.TensorSpec([None], tf.string, "text")]

    def serve(text: Any) -> dict[str, Any]:
        return function(module, text)

    module.serve = tf.function(serve, input_signature=specs)
    tf.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": module.serve})
    return module.serve, port_tower(read(folder / "saved")).tower()


def check(serve: Any, tower: Any) -> None:
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:2], TEXTS * 20):
        found = tower({"text": texts})
        for name, value in serve(tf.constant(texts)).items():
            expected = value.numpy()
            assert found[name].numpy().dtype == expected.dtype and found[name].shape == expected.shape
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(found[name].numpy(), expected, rtol=0, atol=1e-5)
            else:
                np.testing.assert_array_equal(found[name].numpy(), expected)


def ops(tower: Any) -> list[str]:
    return [node.op for graph in (tower.spec.preprocess, tower.spec.encoder) for node in graph.nodes]


def layers(tower: Any) -> set[str]:
    return {spec.type for spec in tower.spec.preprocess.modules.values()}


LIFTED: dict[str, Function] = {
    "as wide as the longest": lambda m, x: {"ids": m.tokenizer.tokenize(x).to_tensor()},
    "cut": lambda m, x: {"ids": (m.tokenizer.tokenize(x) + 1).to_tensor(shape=[None, 6])},
    "shifted down": lambda m, x: {"ids": (m.tokenizer.tokenize(x) - 3).to_tensor(-7, shape=[None, 12])},
    "shifted by a sum": lambda m, x: {"ids": (1 + m.tokenizer.tokenize(x)).to_tensor(5, shape=[None, 40])},
}
STAYS: dict[str, Function] = {
    "multiplied": lambda m, x: {"ids": (m.tokenizer.tokenize(x) * 2).to_tensor(shape=[None, 6])},
    "lengths too": lambda m, x: {
        "ids": m.tokenizer.tokenize(x).to_tensor(shape=[None, 6]), "lengths": m.tokenizer.tokenize(x).row_lengths()},
    "the largest sums": lambda m, x: {"ids": (m.tokenizer.tokenize(x) + (2**31 - 20)).to_tensor(shape=[None, 6])},
    "of its own row": lambda m, x: {"ids": (m.tokenizer.tokenize(x) + m.tokenizer.tokenize(x)).to_tensor()},
}  # fmt: skip


@pytest.mark.parametrize("marks", [{}, {"add_bos": True, "add_eos": True}, {"add_eos": True, "reverse": True}])
@pytest.mark.parametrize("name", LIFTED)
def test_rows(tmp_path: Path, model: bytes, name: str, marks: dict[str, bool]) -> None:
    serve, tower = ported(tmp_path, text.SentencepieceTokenizer(model, **marks), LIFTED[name])
    assert layers(tower) == {"SentencepieceRows"} and ops(tower) == ["module"]
    check(serve, tower)


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_rows_stays(tmp_path: Path, model: bytes, name: str) -> None:
    serve, tower = ported(tmp_path, text.SentencepieceTokenizer(model), STAYS[name])
    assert layers(tower) == {"SentencepieceTokenizer"}
    check(serve, tower)


def test_pieces_stay(tmp_path: Path, model: bytes) -> None:
    tokenizer = text.SentencepieceTokenizer(model, out_type=tf.string)
    _, tower = ported(tmp_path, tokenizer, lambda m, x: {"pieces": m.tokenizer.tokenize(x).to_tensor(shape=[None, 6])})
    assert layers(tower) == {"SentencepieceTokenizer"}


def embedded(kind: Any, shift: int) -> Function:
    """Ids made floats, as layers of TF-Keras make them, masked where they are 0, and looked up."""

    def function(m: Any, x: Any) -> dict[str, Any]:
        ids = tf.cast((m.tokenizer.tokenize(x) + shift).to_tensor(shape=[None, 10]), kind)
        mask = tf.cast(tf.not_equal(ids, 0), tf.float32)
        rows = tf.gather(m.table, tf.cast(ids, tf.int32))
        return {"sum": tf.reduce_sum(rows * mask[:, :, None], 1), "mask": mask}

    return function


def test_checks_and_casts_of_known_ids_go(tmp_path: Path, model: bytes) -> None:
    serve, tower = ported(tmp_path, text.SentencepieceTokenizer(model), embedded(tf.float32, 1))
    check(serve, tower)
    assert not {"in_range", "to_integer"} & set(ops(tower)) and ops(tower).count("cast") == 1, (
        "only the mask is a float"
    )
    assert [spec.dtype for spec in tower.spec.encoder.inputs] == ["int32"]


@pytest.mark.parametrize("shift", [-1, 395])
def test_ids_that_may_leave_the_table_are_checked(tmp_path: Path, model: bytes, shift: int) -> None:
    serve, tower = ported(tmp_path, text.SentencepieceTokenizer(model), embedded(tf.float32, shift))
    assert "in_range" in ops(tower)
    if shift > 0:
        with pytest.raises(InputError, match=r"is not in \[0, 400\)"):
            tower({"text": [b"edit photos with friends"]})
        with pytest.raises(tf.errors.InvalidArgumentError):
            serve(tf.constant([b"edit photos with friends"]))


@pytest.mark.parametrize("kind", ["float16", "float64", "int64"])
def test_through_other_dtypes(tmp_path: Path, model: bytes, kind: str) -> None:
    serve, tower = ported(tmp_path, text.SentencepieceTokenizer(model), embedded(getattr(tf, kind), 1))
    check(serve, tower)
    assert not {"in_range", "to_integer"} & set(ops(tower)) and ops(tower).count("cast") == 1


# -- the rewrites, on graphs of a few ops -----------------------------------------------------------------------------------


def back(bins: int, between: str, last: str, ending: Node) -> tuple[Any, Any]:
    """The bucket of a string, cast there and back; before and after it is lifted."""
    modules = {"hash": ModuleSpec("Hashing", {"num_bins": bins})}
    nodes = (
        Node("hashed", "module", ("x",), {"module": "hash"}),
        Node("there", "cast", ("hashed",), {"dtype": between}),
        ending,
    )
    graph = Graph((TensorSpec("x", "string", (None,)),), nodes, {"out": "back"}, modules)
    dtypes = {"x": "string", "hashed": "int64", "there": between, "back": last}
    known = {name: Value(name, dtype, ("n",)) for name, dtype in dtypes.items()}
    lifted = lift(graph, {}, known)
    x = np.array([b"a", b"b", b"c", b"", b"zz"] * 9, object)
    found, expected = Program(lifted.graph, lifted.store)(x=x)["out"], Program(graph, {})(x=x)["out"]
    assert found.dtype == expected.dtype and torch.equal(found, expected)
    return [node.op for node in lifted.graph.nodes], found


@pytest.mark.parametrize(
    "bins, between, last, want",
    [
        (2**24 + 1, "float32", "int64", ["module"]),
        (2**24 + 2, "float32", "int64", ["module", "cast", "to_integer"]),
        (2**11 + 1, "float16", "int64", ["module"]),
        (2**11 + 2, "float16", "int64", ["module", "cast", "to_integer"]),
        (2**31, "int32", "int64", ["module"]),
        (2**31 + 1, "int32", "int64", ["module", "cast", "cast"]),
        (2**24 + 1, "float32", "int32", ["module", "cast"]),
        (2**31 + 1, "float64", "int32", ["module", "cast", "to_integer"]),
        (128, "int8", "int64", ["module"]),
        (129, "int8", "int64", ["module", "cast", "cast"]),
        (3, "bool", "int64", ["module", "cast", "cast"]),
    ],
)
def test_there_and_back(bins: int, between: str, last: str, want: list[str]) -> None:
    op = "to_integer" if between.startswith("float") else "cast"
    assert back(bins, between, last, Node("back", op, ("there",), {"dtype": last}))[0] == want


@pytest.mark.parametrize(
    "bins, op, number, want",
    [
        (3, "not_equal", 0.0, ["module", "not_equal"]),
        (3, "equal", 2.0, ["module", "equal"]),
        (3, "less", 1.0, ["module", "less"]),
        (3, "greater", 1.0, ["module", "greater"]),
        (3, "greater", 0.5, ["module", "cast", "greater"]),
        (3, "less", float("inf"), ["module", "cast", "less"]),
        (3, "not_equal", float("nan"), ["module", "cast", "not_equal"]),
        (2**24 + 2, "not_equal", 0.0, ["module", "cast", "not_equal"]),
    ],
)
def test_comparisons(bins: int, op: str, number: float, want: list[str]) -> None:
    assert back(bins, "float32", "bool", Node("back", op, ("there", number)))[0] == want
