"""TensorFlow is queried until it has answered enough rows; otherwise the report says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.evidence import ROUNDS, Evidence, gather
from porting.parity.oracle import Oracle
from porting.port import main
from porting.samples import samples
from porting.saved_model import read
from porting.tower import port_tower
from tests.witness import saved_model_of, tf, trace

GRAPH = {"x": np.float32([0.0])}


def asked(refuses: Callable[[np.ndarray], bool]) -> tuple[Evidence, int]:
    """The evidence gathered when batches with a row for which `refuses` is true are refused, and the number of queries."""
    concrete = trace(lambda x: tf.sin(x), GRAPH)
    model = saved_model_of(concrete, ["x"])
    calls = 0

    def ask(batches: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        return ["no" if refuses(batch["x"]) else {"y": batch["x"] * 2} for batch in batches]

    return gather(ask, model.graph("traced"), model), calls


def test_what_is_answered_at_once_is_asked_once() -> None:
    found, calls = asked(lambda x: False)
    assert calls == 1
    assert found.answered >= 2 * found.wanted


def test_a_refused_batch_is_taken_apart() -> None:
    """One row in five is refused: nearly every large batch, and yet the other rows are answered."""
    found, _ = asked(lambda x: bool((x == 0.5).any()))
    assert found.answered > samples.planned(found.samples[:4]) // 2 >= found.wanted
    pairs = zip(found.samples, found.answers, strict=True)
    alone = [sample.inputs["x"] for sample, answer in pairs if answer == "no" and len(sample.inputs["x"]) == 1]
    assert alone and all(row[0] == 0.5 for row in alone)


def test_batches_are_replaced() -> None:
    """What is refused by chance is made anew."""
    count = 0

    def refuses(x: np.ndarray) -> bool:
        nonlocal count
        count += 1
        return count < 90

    found, _ = asked(refuses)
    assert found.answered >= found.wanted


def test_too_few_answers_are_not_enough() -> None:
    found, calls = asked(lambda x: True)
    assert found.answered == 0 < found.wanted
    assert calls >= ROUNDS


@pytest.fixture(scope="module")
def shy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower that answers one number only, which nothing in its graph tells."""

    def answer(x: Any) -> dict[str, Any]:
        wanted = tf.reduce_all(tf.equal(tf.floor(x * x * 1000.0) % 997.0, 123.0))
        with tf.control_dependencies([tf.debugging.Assert(wanted, ["not the number"])]):
            return {"root": tf.stack([x, x * 2.0], 1)}

    module = tf.Module()
    module.serve = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    path = tmp_path_factory.mktemp("shy") / "model"
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path


def test_neither_equal_nor_unequal(shy: Path, oracle: Oracle) -> None:
    report = verify_with_tensorflow(port_tower(read(shy)), oracle)
    assert report.verdict == "not enough evidence"
    assert any("not enough evidence: TensorFlow answered" in line for line in report.lines())
    assert any("not the number" in line for line in report.lines())


def test_the_command_says_so_and_writes_the_checkpoint(
    shy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--query", str(shy), "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().out
    assert "not enough evidence that the query tower is equal to TensorFlow" in said
    assert "not equal" not in said
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["query"]["verdict"] == "not enough evidence"
    assert "not enough evidence" in (tmp_path / "out" / "MODEL.md").read_text()


def float_ids(user: Any, item: Any) -> Any:
    """Ids that come as floats and integers without any table of keys in the graph: as matrix factorization is exported."""
    x = tf.gather(weight(30, 4), tf.cast(user, tf.int32)) * tf.gather(weight(7, 4), item[:, 0])
    return tf.nn.sigmoid(tf.reduce_sum(x, -1))


def masked_attention(ids: Any, mask: Any) -> Any:
    """0 in the mask takes a position out: other numbers in it are multiples of a logit of -10000."""
    x = tf.gather(weight(30, 8), ids)
    logits = x @ tf.transpose(x, [0, 2, 1]) + (1.0 - tf.cast(mask, tf.float32)[:, None, :]) * -10000.0
    return tf.reduce_mean(tf.nn.softmax(logits) @ x, 1)


def pixels(image: Any) -> Any:
    """A network over rescaled pixels."""
    x = tf.nn.relu(tf.nn.conv2d(image / 127.5 - 1.0, weight(3, 3, 3, 4), 2, "SAME"))
    return tf.reduce_mean(tf.nn.conv2d(x, weight(3, 3, 4, 4), 2, "SAME"), [1, 2])


def weight(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))


TOWERS: dict[Any, Any] = {
    float_ids: {"user": ([None], "float32"), "item": ([None, 1], "int32")},
    masked_attention: {"ids": ([None, None], "int32"), "mask": ([None, None], "int32")},
    pixels: {"image": ([None, 16, 16, 3], "float32")},
}


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.__name__)
def test_towers_without_tables_are_equal_on_inputs_of_their_own(tower: Any, tmp_path: Path, oracle: Oracle) -> None:
    module = tf.Module()
    specs = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in TOWERS[tower].items()]
    module.serve = tf.function(lambda *inputs: {"y": tower(*inputs)}, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    report = verify_with_tensorflow(port_tower(read(tmp_path)), oracle)
    assert report.verdict == "equal", report.lines()
    assert report.domain_rows == sum(samples.BATCH_SIZES)
    assert report.edge_rows >= 7


def test_a_file_counts_as_the_pixels_that_are_made_of_it(tmp_path: Path) -> None:
    """One element of text becomes 300 x 300 pixels of 3 channels, and 16 channels of a convolution."""

    def image(data: Any) -> Any:
        return tf.image.resize(tf.cast(tf.io.decode_jpeg(data, channels=3), tf.float32), [300, 300])

    def tower(files: Any) -> Any:
        x = tf.map_fn(image, files, fn_output_signature=tf.float32)
        return {"y": tf.reduce_mean(tf.nn.conv2d(x, weight(3, 3, 3, 16), 1, "SAME"), [1, 2])}

    module = tf.Module()
    module.serve = tf.function(tower, input_signature=[tf.TensorSpec([None], tf.string, "files")])
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    ported = port_tower(read(tmp_path))
    assert ported.inside == 300 * 300 * 16
    made = samples.batches(ported.tf_graph, ported.model, inside=ported.inside)
    assert max(samples.rows(sample.inputs) for sample in made) == samples.BUDGET // ported.inside
