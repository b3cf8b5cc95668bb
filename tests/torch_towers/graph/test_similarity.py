"""The two similarities, and what is said of other names."""

from __future__ import annotations

import pytest

from torch_towers.graph.similarity import check_similarity


def test_the_two() -> None:
    check_similarity("dot")
    check_similarity("cosine")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cosin", r"'dot' or 'cosine', not 'cosin' \(did you mean 'cosine'\?\)"),
        ("euclidean", "distance has SQUARED_L2_DISTANCE"),
        ("manhattan", "distance has L1_DISTANCE"),
        (3, "not 3$"),
    ],
)
def test_others(name: object, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        check_similarity(name)
