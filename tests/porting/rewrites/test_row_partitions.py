"""What ragged functions of TensorFlow check again is left out where it cannot fail, and checked where it can."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.porting.rewrites.conftest import Exported, export
from tests.witness import run, tf
from torch_towers.errors import InputError

text = pytest.importorskip("tensorflow_text", reason="a producer of these graphs: install requirements-parity.txt")

TEXTS = [["a bb  ccc", "", "größe!"], [""], ["", ""], ["one"], ["x y"] * 4]
GIVEN = [([1, 2, 3], [2, 0, 1]), ([], []), ([], [0]), ([4, 5], [1, 1])]
REFUSED = [([1, 2, 3], [2, 0]), ([1], [2, -1]), ([1, 2], [1, 2])]


class Ragged(tf.Module):
    """Functions on ragged tensors that an op of the graph makes, and on what a caller gives."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "texts")])
    def made(self, texts: Any) -> Any:
        words = text.WhitespaceTokenizer().tokenize(texts)
        characters = tf.strings.unicode_decode(texts, "UTF-8")
        scripts = text.UnicodeScriptTokenizer().tokenize(texts)
        starts = text.UnicodeScriptTokenizer().tokenize_with_offsets(texts)[1]
        lengths = characters.row_lengths()
        again = tf.RaggedTensor.from_row_lengths(characters.flat_values, lengths)
        rows = tf.RaggedTensor.from_row_splits(characters.flat_values, tf.concat([[0], tf.cumsum(lengths)], 0))
        return {
            "words": words.to_tensor("-"), "scripts": scripts.to_tensor("-"), "starts": starts.to_tensor(-1),
            "again": again.to_tensor(-1), "rows": rows.to_tensor(-1), "ids": characters.value_rowids(),
            "repeated": tf.repeat(tf.range(tf.size(lengths)) * 3, lengths), "sums": tf.reduce_sum(characters, 1),
            "named": tf.repeat(texts, lengths),
        }  # fmt: skip

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int32, "values"), tf.TensorSpec([None], tf.int64, "lengths")]
    )
    def given(self, values: Any, lengths: Any) -> Any:
        return {
            "lengths": tf.RaggedTensor.from_row_lengths(values, lengths).to_tensor(-1),
            "splits": tf.RaggedTensor.from_row_splits(values, tf.concat([[0], tf.cumsum(lengths)], 0)).to_tensor(-1),
            "repeated": tf.repeat(lengths, tf.cast(lengths, tf.int32)),
        }


def _asserting(condition: Any, x: Any) -> Any:
    with tf.control_dependencies([tf.debugging.Assert(condition, [x])]):
        return {"same": tf.identity(x)}


class Wrong(tf.Module):
    """Checks that look as if they could not fail."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, "x")])
    def axis(self, x: Any) -> Any:
        return _asserting(tf.equal(tf.shape(x[:, 1:])[0], tf.shape(x)[0] - 1), x)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "x")])
    def empty(self, x: Any) -> Any:
        return _asserting(tf.equal(tf.shape(x[1:])[0], tf.shape(x)[0] - 1), x)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "x")])
    def width(self, x: Any) -> Any:
        return _asserting(tf.reduce_all(tf.concat([[0], tf.cumsum(tf.math.floormod(x, 2**31 - 1))], 0) >= 0), x)


WRONG = {
    "axis": np.ones((3, 2), np.int64),
    "empty": np.ones(0, np.int64),
    "width": np.full(3, 2**31 - 2, np.int32),
}


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module, folder = Ragged(), tmp_path_factory.mktemp("ragged") / "model"
    tf.saved_model.save(module, str(folder), signatures={"made": module.made, "given": module.given})
    return folder


def assert_refused(model: Exported, batch: dict[str, np.ndarray]) -> None:
    """By TensorFlow, op by op, and lifted."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.tensorflow(batch)
    for program in (model.plain, model.program):
        with pytest.raises(InputError):
            run(program, batch)


def test_checks_that_cannot_fail_are_left_out(ragged: Path) -> None:
    model = export(ragged, "made")
    before, after = (Counter(node.op for node in graph.nodes) for graph in (model.plain.graph, model.lifted.graph))
    assert before["check"] >= 30 and before["where_true"] >= 3
    assert after["check"] <= before["check"] // 4
    assert after["where_true"] == 0 and after["repeat_rows"] >= 3
    assert after.total() < before.total() / 2


def test_values_are_tensorflows(ragged: Path) -> None:
    model = export(ragged, "made")
    for texts in TEXTS:
        model.check({"texts": np.array([item.encode() for item in texts], object)})


def test_what_is_given_is_checked(ragged: Path) -> None:
    model = export(ragged, "given")
    for values, lengths in GIVEN:
        model.check({"values": np.array(values, np.int32), "lengths": np.array(lengths, np.int64)})
    for values, lengths in REFUSED:
        assert_refused(model, {"values": np.array(values, np.int32), "lengths": np.array(lengths, np.int64)})


@pytest.mark.parametrize("signature", WRONG)
def test_checks_that_can_fail_stay(tmp_path: Path, signature: str) -> None:
    module = Wrong()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={signature: getattr(module, signature)})
    assert_refused(export(tmp_path / "model", signature), {"x": WRONG[signature]})
