from __future__ import annotations

import pytest

from porting.components import component_of


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["x_indices", "x_values", "x_dense_shape"], ["indices", "values", "shape"]),
        (["x/values", "x/splits0"], ["values", "splits"]),
        (["x_values", "x_row_splits"], ["values", "splits"]),
        (["genres__values", "genres__offsets"], ["values", "splits"]),
        (["x_values", "y_row_splits"], [None, None]),
        (["customer_values", "age"], [None, None]),
        (["x_indices", "x_values"], [None, None]),
    ],
)
def test_parts(names: list[str], parts: list[str | None]) -> None:
    assert [component_of(name, set(names)) for name in names] == parts
