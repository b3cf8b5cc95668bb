"""The fused recurrent cells of TensorFlow 1's contrib against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.witness import Case, case, check_case, check_function, tf

RNG = np.random.default_rng(0)
BATCH, INPUTS, DIM, TIME = 3, 5, 4, 6
SUMS = "sums of 9 products in another order, through sigmoids and 6 steps of time"


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def lstm_operands() -> dict[str, Any]:
    operands = {
        "cs_prev": weights(BATCH, DIM),
        "h_prev": weights(BATCH, DIM),
        "w": weights(INPUTS + DIM, 4 * DIM),
        "b": weights(4 * DIM),
    }
    return operands | {name: weights(DIM) for name in ("wci", "wcf", "wco")}


def cases() -> list[Case]:
    rows: list[Case] = []
    held = ("w", "b", "wci", "wcf", "wco")
    common = {"absolute": 2e-6, "reason": SUMS}
    for peephole in (False, True):
        for clip in (0.0, 0.3, 3.0):
            attrs = {"cell_clip": clip, "use_peephole": peephole}
            for bias in (0.0, 1.0):
                more = {**attrs, "forget_bias": bias}
                rows.append(
                    case("LSTMBlockCell", *held, x=weights(BATCH, INPUTS), **lstm_operands(), attrs=more, **common)
                )
                rows.append(case("BlockLSTM", *held, seq_len_max=np.int64(TIME), x=weights(TIME, BATCH, INPUTS), **lstm_operands(), attrs=more,
                                 batched=False, **common))  # fmt: skip
            rows.append(case("BlockLSTMV2", "seq_len_max", *held, seq_len_max=np.int64(TIME), x=weights(TIME, BATCH, INPUTS), **lstm_operands(),
                             attrs=attrs, batched=False, **common))  # fmt: skip
    rows.append(case("GRUBlockCell", "w_ru", "w_c", "b_ru", "b_c", x=weights(BATCH, INPUTS), h_prev=weights(BATCH, DIM), b_c=weights(DIM),
                     w_ru=weights(INPUTS + DIM, 2 * DIM), w_c=weights(INPUTS + DIM, DIM), b_ru=weights(2 * DIM), **common))  # fmt: skip
    return rows


CASES = cases()


@pytest.mark.parametrize("row", CASES, ids=str)
def test_conformance(row: Case) -> None:
    check_case(row)


def test_steps_after_the_longest() -> None:
    """Cells and outputs are zeros there; for the gates TensorFlow leaves uninitialized memory."""

    def build(steps: Any, x: Any) -> Any:
        operands = {name: tf.constant(value) for name, value in held.items()}
        found = tf.raw_ops.BlockLSTM(seq_len_max=steps, x=x, **operands)
        return found.cs, found.h

    held, x = lstm_operands(), weights(TIME, BATCH, INPUTS)
    check_function(build, [{"steps": np.int64(steps), "x": x} for steps in (4, 0)], absolute=2e-6)
