"""Documents of Vertex AI's Two-Tower algorithm as columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from torch_towers.errors import InputError
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.reader import InputReader

SPECS = (
    TensorSpec("user", "string", ("batch",)),
    TensorSpec("titles", "string", ("batch", None)),
    TensorSpec("ratings", "float32", ("batch", None)),
    TensorSpec("vector", "float32", ("batch", 2)),
    TensorSpec("count", "int64", ("batch", 1)),
)
GOOD = {"user": ["u"], "titles": ["a", "b"], "ratings": [1.5, "2"], "vector": [1, 2], "count": ["7"], "other": [None]}


def row(**changes: Any) -> dict[str, str]:
    return {
        "data": json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...}),
        "key": "k",
    }


def test_rows() -> None:
    """Padded to the longest row; a missing feature of any length is empty; single values may stand without a list."""
    columns, rows = InputReader(SPECS)([row(), row(titles=..., ratings=[], user="v", count=2**53 + 1)])
    assert rows == 2
    assert columns["user"].tolist() == [b"u", b"v"]
    assert columns["titles"].tolist() == [[b"a", b"b"], [b"", b""]]
    assert np.array_equal(columns["ratings"], [[1.5, 2.0], [0.0, 0.0]])
    assert columns["count"].tolist() == [[7], [2**53 + 1]]
    nothing, _ = InputReader(SPECS)([row(titles=..., ratings=...)])
    assert nothing["titles"].shape == nothing["ratings"].shape == (1, 0)


def test_columns_and_key() -> None:
    """The two fields as columns; the key is an input where the tower has one."""
    reader = InputReader((SPECS[0], TensorSpec("key", "string", ("batch",))))
    columns, _ = reader({"data": [row()["data"]], "key": ["k1"]})
    assert columns["key"].tolist() == [b"k1"]
    with pytest.raises(InputError, match="'key' is missing"):
        reader([{"data": row()["data"]}])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"user": [1]}, "row 0: feature 'user': 1 is not a string"),
        ({"user": []}, "row 0: feature 'user' has 0 values; the tower takes 1"),
        ({"vector": [1.0]}, "row 0: feature 'vector' has 1 values; the tower takes 2"),
        ({"ratings": ["many"]}, "'many' is not a number"),
        ({"ratings": [True]}, "feature 'ratings': True is not a number"),
        ({"count": ["1_000"]}, "'1_000' is not an integer"),
        ({"count": [None]}, "feature 'count': the value is null"),
        ({"vector": ...}, "'vector' is missing"),
    ],
)  # fmt: skip
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InputReader(SPECS)([row(**changes)])


@pytest.mark.parametrize("data", ["{", "[1]", 3])
def test_no_document(data: Any) -> None:
    with pytest.raises(InputError, match="row 1"):
        InputReader(SPECS)([row(), {"data": data, "key": "k"}])


def test_a_feature_of_the_name_data_is_a_feature() -> None:
    reader = InputReader((TensorSpec("data", "string", ("batch",)),))
    assert reader([{"data": "x"}])[0]["data"].tolist() == [b"x"]
