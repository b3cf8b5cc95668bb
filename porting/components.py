"""The inputs that together are one sparse or ragged value, by their names."""

from __future__ import annotations

import re

_PART = re.compile(r"^(.*?)(?:__|_|/)(indices|values|dense_shape|offsets|(?:row_)?splits_?\d*)$")
_WHOLE = (frozenset({"indices", "values", "dense_shape"}), frozenset({"splits", "values"}))
_NAMES = {"dense_shape": "shape", "offsets": "splits"}


def component_of(name: str, names: set[str]) -> str | None:
    """What part of a sparse or ragged value the input `name` is: "values", "indices", "shape" or "splits"; None: a tensor.

    "x_values" is a part where "x_indices" and "x_dense_shape" stand beside it, "x__values" where "x__offsets" does, and so on.
    """
    base, part = _split(name)
    siblings = {other for other_base, other in map(_split, names) if other_base == base}
    if part is None or not any({_NAMES.get(p, p) for p in whole} <= siblings for whole in _WHOLE):
        return None
    return part


def _split(name: str) -> tuple[str, str | None]:
    """ "x" and "splits" of "x_row_splits"."""
    match = _PART.match(name)
    if match is None:
        return name, None
    part = match[2]
    return match[1], "splits" if "splits" in part else _NAMES.get(part, part)
