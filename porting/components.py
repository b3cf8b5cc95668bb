"""The inputs that together are one sparse or ragged value, by their names."""

from __future__ import annotations

_KINDS = (
    {"_indices": "indices", "_values": "values", "_dense_shape": "shape"},
    {"_row_splits": "splits", "_values": "values"},
    {"_splits0": "splits", "_values": "values"},
    {"_row_splits_0": "splits", "_values": "values"},
    {"__offsets": "splits", "__values": "values"},
)


def component_of(name: str, names: set[str]) -> str | None:
    """What part of a sparse or ragged value the input `name` is: "values", "indices", "shape" or "splits"; None: a tensor.

    "x_values" is a part where "x_indices" and "x_dense_shape" stand beside it, "x__offsets" where "x__values" does, and so on.
    """
    for kind in _KINDS:
        for ending, part in kind.items():
            base = name.removesuffix(ending)
            if base != name and all(base + other in names for other in kind):
                return part
    return None
