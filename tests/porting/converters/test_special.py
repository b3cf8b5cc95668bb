"""Special functions, counts and losses against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.witness import Case, case, check_case, check_function, tf

RNG = np.random.default_rng(0)
NAN, INF = np.nan, np.inf
POSITIVE = np.concatenate([RNG.uniform(0.05, 20, 60), [0.5, 1, 2, 3, 100]])
APART = "two approximations of a function that neither computes to the last bit: relative to 1, near a zero of it"


def function_cases() -> list[Case]:
    rows: list[Case] = []
    for name in ("I0", "I0e", "I1", "I1e", "K0", "K1", "K0e", "K1e"):
        x = POSITIVE if name[0] == "K" else np.concatenate([POSITIVE, -POSITIVE, [0.0]])
        x = np.concatenate([np.clip(x, -20, 20), [0.0, -0.0, -1, INF, -INF, NAN]])
        rows += [
            case(f"Bessel{name}", x=x.astype(dtype), ulp=16, absolute=size, reason=APART, label=np.dtype(dtype).name)
            for dtype, size in ((np.float32, 2e-6), (np.float64, 5e-15))
        ]
    a, x = (
        grid.reshape(-1)
        for grid in np.meshgrid(
            [-1, 0, 0.1, 0.5, 1, 2, 7.5, 30, INF, -INF, NAN],
            [-1, -0.0, 0.0, 0.01, 0.5, 1, 3, 10, 40, 200, INF, -INF, NAN],
        )
    )
    for op in ("Igamma", "Igammac"):
        rows += [
            case(op, a=a.astype(dtype), x=x.astype(dtype), absolute=size, reason=APART, label=np.dtype(dtype).name)
            for dtype, size in ((np.float32, 3e-6), (np.float64, 1e-13))
        ]
    edges = np.array([0.0, -0.0, 1, -1, INF, -INF, NAN, 1e-30, 3e38])
    for dtype in (np.float32, np.float64):
        x, y = (grid.reshape(-1).astype(dtype) for grid in np.meshgrid(edges, edges))
        rows.append(case("NextAfter", x1=x, x2=y, label=np.dtype(dtype).name))
    return rows


def count_cases() -> list[Case]:
    rows = [
        case("PopulationCount", x=np.array([0, 1, -1, 77, -128, 127]).astype(dtype), label=np.dtype(dtype).name)
        for dtype in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16)
    ]
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    for tolerance in (1e-5, 0.5):
        rows += [
            case("ApproximateEqual", x=x.astype(dtype), y=(x + 0.4).astype(dtype), attrs={"tolerance": tolerance},
                 label=f"{np.dtype(dtype).name} {tolerance}")
            for dtype in (np.float32, np.float64)
        ]  # fmt: skip
    for exclusive in (False, True):
        for reverse in (False, True):
            rows += [
                case("CumulativeLogsumexp", "axis", x=np.array([[1, 2, -INF, 3, 90], [-INF, -INF, 0, 1, 2]], dtype), axis=axis, ulp=4,
                     absolute=1e-6, reason="exponentials and logarithms of two libraries", label=f"{axis} {exclusive} {reverse} {np.dtype(dtype)}",
                     attrs={"exclusive": exclusive, "reverse": reverse})
                for axis in (0, 1, -1) for dtype in (np.float32, np.float64)
            ]  # fmt: skip
    for dtype in (tf.int32, tf.int64):
        for values in (np.array([-1, 0, 1.5, 2, 5, 15, 4.9999], np.float32), np.array([[-1, 0], [3, 9]]), np.zeros(0)):
            rows.append(case("HistogramFixedWidth", "nbins", values=values, value_range=np.array([0, 5], values.dtype), nbins=np.int32(5),
                             attrs={"dtype": dtype}, batched=False, label=f"{values.dtype} {dtype.name}"))  # fmt: skip
    scores = np.array(
        [[0.1, 0.5, 0.5, 0.2], [0.9, 0.1, 0.2, 0.3], [INF, 1, 2, 3], [NAN, 1, 2, 3], [4, 3, 2, 1]], np.float32
    )
    for targets in ([1, 3, 1, 1, 0], [2, 0, 0, 0, 3], [9, -1, 3, 3, 2]):
        for k in (1, 2, 4):
            for dtype in (np.int32, np.int64):
                held = {"predictions": scores, "targets": np.array(targets, dtype)}
                rows.append(case("InTopKV2", "k", **held, k=dtype(k), label=f"{targets} {k} {np.dtype(dtype)}"))
                rows.append(case("InTopK", **held, attrs={"k": k}, label=f"{targets} {k} {np.dtype(dtype)}"))
    for reverse in (False, True):
        for dtype in (np.float32, np.int64, np.float64):
            rows.append(case("NthElement", "n", input=(x * 9).astype(dtype), n=np.int32(1), attrs={"reverse": reverse}))
    dims = np.array([3, 4, 5])
    rows += [
        case("UnravelIndex", indices=np.array([0, 59, 7, 22]), dims=dims, batched=False),
        case("UnravelIndex", indices=np.int32(23), dims=dims.astype(np.int32), batched=False, label="rank 0"),
    ]
    return rows


def loss_cases() -> list[Case]:
    rows: list[Case] = []
    reason = "sums of exponentials, in another order"
    for dtype, size in ((np.float32, 1e-6), (np.float64, 1e-14)):
        logits, labels = RNG.normal(size=(4, 5)).astype(dtype) * 4, RNG.dirichlet(np.ones(5), 4).astype(dtype)
        rows.append(
            case("SoftmaxCrossEntropyWithLogits", features=logits, labels=labels, absolute=size, ulp=4, reason=reason)
        )
        for kind in (np.int32, np.int64):
            rows.append(case("SparseSoftmaxCrossEntropyWithLogits", features=logits, labels=np.array([0, 4, 1, 1], kind), absolute=size,
                             ulp=4, reason=reason, label=f"{np.dtype(dtype)} {np.dtype(kind)}"))  # fmt: skip
    return rows


CASES = function_cases() + count_cases() + loss_cases()
COVERED = ("ToBool", "AccumulateNV2")


@pytest.mark.parametrize("row", CASES, ids=str)
def test_conformance(row: Case) -> None:
    check_case(row)


def test_sums_and_truth() -> None:
    def build(x: Any) -> Any:
        return tf.raw_ops.AccumulateNV2(inputs=[x, x * 2, x], shape=[3]), [
            tf.raw_ops.ToBool(input=y) for y in (x[0], x[1], x, x[:0])
        ]

    check_function(
        build, [{"x": np.array([0, 1, NAN], np.float32)}, {"x": np.array([NAN, -0.0, 1], np.float32)}], free=False
    )
    check_function(lambda x: [tf.raw_ops.ToBool(input=x[0]), tf.raw_ops.ToBool(input=x[1])], [{"x": [b"", b"0"]}])
