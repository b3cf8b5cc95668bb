"""Each element of an axis several times, in both spellings, is one op; other tiles and parts stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from porting.conversion.emitter import Emitter
from porting.lifting.lift import lift
from tests.porting.rewrites.by_hand import lifted, ops
from torch_towers.graph.graph import TensorSpec

X = {"x": ("float32", ("n", 3, 4, 5))}


def tiled(
    t: Any, x: Any, axis: int = 2, times: tuple[int, ...] = (1, 1, 2, 1, 1), sizes: tuple[int, ...] = (6, 4, 5)
) -> Any:
    """tf.repeat"""
    return t.reshape(t.tile(t.unsqueeze(x, axis=axis), *times), t.size(x, axis=0), *sizes)


def parts(t: Any, x: Any, order: tuple[int, ...] = (0, 0, 1, 1, 2, 2), axis: int = 1, to: int = 1, num: int = 3) -> Any:
    """The backend of tf_keras"""
    found = t.chunk(x, axis=axis, num=num)
    return t.concat(*[found[part] for part in order], axis=to)


@pytest.mark.parametrize(
    "write",
    [
        tiled,
        lambda t, x: tiled(t, x, -3),
        lambda t, x: tiled(t, x, 4, (1, 1, 1, 1, 2), (3, 4, 10)),
        parts,
        lambda t, x: parts(t, x, axis=-3),
        lambda t, x: parts(t, x, (0, 0, 1, 1, 2, 2, 3, 3, 4, 4), 3, 3, 5),
    ],
    ids=["tiled", "tiled_from_the_end", "tiled_last", "parts", "parts_from_the_end", "parts_of_the_last_axis"],
)
def test_both_spellings(write: Callable[..., Any]) -> None:
    found = lifted(write, X)
    (node,) = [node for node in found.graph.nodes if node.op == "repeat_each"]
    assert node.attrs["count"] == 2
    assert ops(found) == ["repeat_each"]


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x: tiled(t, x, 1, (1, 2, 1, 1, 1)),
        lambda t, x: tiled(t, x, 2, (1, 2, 1, 1, 1)),
        lambda t, x: tiled(t, x, sizes=(3, 8, 5)),
        lambda t, x: parts(t, x, (0, 1, 2, 0, 1, 2)),
        lambda t, x: parts(t, x, (0, 0, 1, 1, 1, 2)),
        lambda t, x: parts(t, x, (0, 0, 1, 1), 2, 2, 2),
        lambda t, x: parts(t, x, to=2),
    ],
    ids=[
        "the_whole_axis",
        "another_axis",
        "merged_with_another",
        "parts_in_turn",
        "parts_not_as_often",
        "wide_parts",
        "side_by_side",
    ],
)
def test_others_stay(write: Callable[..., Any]) -> None:
    assert "repeat_each" not in ops(lifted(write, X))


@pytest.mark.parametrize("write", [tiled, parts])
def test_strings_stay(write: Callable[..., Any]) -> None:
    """The op repeats numbers."""
    t = Emitter([TensorSpec("x", "string", ("n", 3, 4, 5))])
    graph = t.graph({"out": write(t, t.value("x", "string", ("n", 3, 4, 5)))})
    assert "repeat_each" not in ops(lift(graph, t.store, t.known))
