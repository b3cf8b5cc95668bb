from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_towers.formats.npz import as_strings, load_arrays, save_arrays, to_numpy

any_file = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def strings(items: list[bytes], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


@any_file
@given(items=st.lists(st.binary() | st.sampled_from([b"\0", b"a\0", b"\0\0b", b""])), columns=st.integers(0, 3))
def test_any_bytes_come_back(tmp_path: Path, items: list[bytes], columns: int) -> None:
    items = items * columns
    array = strings(items, (len(items) // columns, columns) if columns else (0, 3))
    save_arrays(tmp_path / "a.npz", {"x|#y": array, "0-d": strings([b"\0z\0"], ())})
    found = load_arrays(tmp_path / "a.npz")
    assert found["x|#y"].dtype == object
    assert found["x|#y"].shape == array.shape
    assert found["x|#y"].tolist() == array.tolist()
    assert found["0-d"].shape == ()
    assert found["0-d"].item() == b"\0z\0"


@any_file
@given(array=hnp.arrays(st.sampled_from(["f4", "f8", "i8", "u1", "?", "c8"]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_numbers_come_back_to_the_bit(tmp_path: Path, array: np.ndarray) -> None:
    save_arrays(tmp_path / "a.npz", {"x": array})
    found = load_arrays(tmp_path / "a.npz")["x"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_fixed_width_strings_of_others_are_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", text=np.array(["ü", "bc"]), raw=np.array([b"\xff", b""]))
    found = load_arrays(tmp_path / "a.npz")
    assert found["text"].tolist() == ["ü".encode(), b"bc"]
    assert found["raw"].tolist() == [b"\xff", b""]


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="'x': holds Python objects, which are pickled: save texts with"):
        load_arrays(tmp_path / "a.npz")


def test_values_of_the_runtime() -> None:
    assert as_strings(np.array([["a"]])).tolist() == [[b"a"]]
    half = torch.tensor([1.0, -0.0, float("inf")], dtype=torch.bfloat16)
    assert to_numpy(half).dtype == np.float32
    assert to_numpy(half).tolist() == [1.0, -0.0, float("inf")]
    assert to_numpy(7).shape == ()
