"""Maps over rows need no order of steps; loops that do stay loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.producers import graphs, modules
from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.ops.control_flow import at_most_steps
from torch_towers.parity.answers import answer


class Maps(tf.Module):
    """Maps as TensorFlow writes them, and loops that only look alike."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([None], tf.string, "words")])
    def serve(self, x: Any, words: Any) -> Any:
        spec = tf.TensorSpec([], tf.float32)
        largest, lengths = tf.map_fn(
            lambda row: (tf.reduce_max(row[0]), tf.strings.length(row[1])),
            (x, words),
            fn_output_signature=(spec, tf.int32),
        )
        nested = tf.map_fn(lambda row: tf.reduce_sum(tf.map_fn(lambda y: y * 2.0, row)), x)
        joined = tf.map_fn(lambda word: tf.strings.join([word, words[0]]), words)
        scanned = tf.scan(lambda total, row: total + row, x)
        places, counted = tf.TensorArray(tf.int32, size=tf.shape(x)[0]), tf.constant(0)
        stopped, found = counted, tf.TensorArray(tf.float32, size=tf.shape(x)[0], element_shape=[])
        while counted < tf.shape(x)[0]:
            places = places.write(counted, counted * 3)
            counted += 1
        while stopped < tf.shape(x)[0] and x[stopped, 0] > 0.0:
            found = found.write(stopped, x[stopped, 0])
            stopped += 1
        return {
            "largest": largest, "lengths": lengths, "nested": nested, "joined": joined, "scanned": scanned,
            "places": places.stack() + 0 * counted, "found": found.stack(),
        }  # fmt: skip


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Maps, PortedTower]:
    module = Maps()
    folder = tmp_path_factory.mktemp("maps") / "model"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return module, port_tower(read(folder))


def _loops(ported: PortedTower) -> list[str]:
    parts = (ported.spec.preprocess, ported.spec.encoder)
    return sorted(node.op for part in parts for node in part.nodes if node.op in ("map_steps", "while_loop"))


def test_what_becomes_a_map(maps: tuple[Maps, PortedTower]) -> None:
    assert _loops(maps[1]) == ["map_steps"] * 3 + ["while_loop"] * 3, (
        "scanned, found, and places, whose counter is read"
    )


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_values_are_tensorflows(maps: tuple[Maps, PortedTower], rows: int) -> None:
    module, ported = maps
    x = np.random.default_rng(rows).normal(0.5, 1, (rows, 3)).astype(np.float32)
    batch = {"x": x, "words": np.array([b"w" * i for i in range(rows)], object)}
    found = answer(ported.tower(), batch)
    assert isinstance(found, dict)
    for name, value in module.serve(**{key: tf.constant(value) for key, value in batch.items()}).items():
        np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)


def test_gradients_pass_a_map(tmp_path: Path) -> None:
    graphs.control_flow_2(tmp_path / "model")
    tower = port_tower(read(tmp_path / "model")).tower()
    x = torch.rand(3, 4)
    tower.encoder(**tower.preprocess({"x": x, "steps": 2}))["mapped"].sum().backward()
    weight = next(value for name, value in tower.encoder.named_parameters())
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0], x.max(1).values.sum().expand(4))


def test_images_are_decoded_on_several_threads(tmp_path: Path) -> None:
    modules.images(tmp_path / "model")
    ported = port_tower(read(tmp_path / "model"))
    (loop,) = [node for node in ported.spec.preprocess.nodes if node.op == "map_steps"]
    assert loop.attrs["threads"]
    tower, images = ported.tower(), modules.jpegs(7)
    before = torch.get_num_threads()
    found = []
    for number in (1, 3):
        torch.set_num_threads(number)
        try:
            found.append(tower.encode({"bytes": images}, convert_to_numpy=True))
            with pytest.raises(InputError, match="a JPEG image of 5 bytes"):
                tower.encode({"bytes": [*images, b"\xff\xd8\xff12", b"\xff\xd8\xff1"]})
            with pytest.raises(InputError, match="more than 6 steps"), at_most_steps(6):
                tower.encode({"bytes": images})
        finally:
            torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)
