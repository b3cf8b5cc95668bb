from __future__ import annotations

import numpy as np
import pytest

from tests.witness import Case, case, check_case

CASES = [
    case("Identity", input=[[1.0, -0.0], [float("nan"), 2.0]]),
    case("Identity", input=["a", b"\xff"], label="strings"),
    case("IdentityN", input=([1.0, 2.0], [1, 2])),
    case("Shape", input=np.zeros((2, 3), np.float32)),
    case("Shape", input=np.zeros((2, 3), np.float32), attrs={"out_type": 9}),
    case("ShapeN", input=(np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32))),
    case("Rank", input=np.zeros((2, 3), np.float32)),
    case("Size", input=np.zeros((2, 3), np.float32)),
    case("Size", input=np.zeros((0, 3), np.float32), attrs={"out_type": 9}, batched=False),
]


@pytest.mark.parametrize("row", CASES, ids=str)
def test_op(row: Case) -> None:
    check_case(row)
