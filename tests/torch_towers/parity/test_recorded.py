"""Recorded batches round-trip, and their files are not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_towers.errors import CheckpointError, InputError
from torch_towers.parity.recorded import Recorded, kept, of_reference, pack, unpack

FILE = Path("samples.npz")
names = st.text("ab|/#_0 ", min_size=1, max_size=8)


def strings(*items: bytes) -> np.ndarray:
    made = np.empty(len(items), object)
    made[:] = items
    return made


values = hnp.arrays(st.sampled_from(["f4", "f8", "i8", "?"]), hnp.array_shapes(max_dims=2, max_side=3)) | st.lists(
    st.binary(max_size=5), max_size=3
).map(lambda items: strings(*items))
columns = st.dictionaries(names, values, max_size=3)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["query", "serving_default", "root.a#0"]),
        st.lists(
            st.builds(Recorded, columns, columns | st.text(), columns, st.sampled_from(["domain", "edge"])), max_size=3
        ),
    )
)
def test_what_was_packed_comes_back(towers: dict[str, list[Recorded]]) -> None:
    found = unpack(FILE, pack(towers))
    assert found.keys() == {name for name, batches in towers.items() if batches}
    for name, batches in found.items():
        for ours, packed in zip(batches, towers[name], strict=True):
            assert ours.kind == packed.kind
            same(ours.inputs, packed.inputs)
            same(ours.ids, packed.ids)
            if isinstance(packed.outputs, str):
                assert ours.outputs == packed.outputs
            else:
                same(ours.outputs, packed.outputs)


def same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_equal_batches_give_equal_bytes() -> None:
    batch = Recorded({"x": np.arange(3)}, {"y": np.ones(3, "f4")})
    assert pack({"query": [batch]}) == pack({"query": [batch]})


def test_of_each_kind_something_is_kept() -> None:
    def batch(kind: str, count: int) -> Recorded:
        return Recorded({"x": np.zeros(count, np.int8)}, {"y": np.zeros(count, np.int8)}, kind=kind)

    batches = [batch("domain", 10), batch("domain", 30), batch("domain", 5), batch("edge", 10)]
    assert kept(batches, 1000) == batches
    assert kept(batches, 50) == [batches[0], batches[2], batches[3]]
    assert kept(batches, 5) == []


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pack({"q": [Recorded({}, {})]})[:-9]])
def test_a_damaged_file_is_named(data: bytes) -> None:
    with pytest.raises(InputError, match=r"samples\.npz"):
        unpack(FILE, data)


def test_an_array_under_another_name_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(2))
    with pytest.raises(CheckpointError, match="'x' does not name an array"):
        unpack(tmp_path / "a.npz")


def test_a_file_that_declares_more_than_it_may_hold_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{"query|0|in|x": np.zeros(80 << 20, np.uint8)})
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    with pytest.raises(InputError, match="more than"):
        unpack(tmp_path / "a.npz")


def test_a_reference_is_read_by_spelling_or_by_position() -> None:
    x, y = np.ones(2), np.zeros(2)
    spelled = of_reference({"s|in|a_b": x, "s|out|y": y}, "s", ["a/b"], ["y"])
    assert list(spelled[0].inputs) == ["a/b"]
    numbered = of_reference({"root.f#0|in|args_0": x, "root.f#0|out|0": y}, "f", ["x"], ["y"])
    assert (
        list(numbered[0].inputs) == ["x"]
        and isinstance(numbered[0].outputs, dict)
        and list(numbered[0].outputs) == ["y"]
    )
    assert of_reference({"s|in|a": x, "s|out|y": y}, "t", ["a"], ["y"]) == []
