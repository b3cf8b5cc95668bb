"""Segment reductions and histograms against TensorFlow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.witness import Case, assert_equal, case, check_case, check_function, run, tf
from torch_towers.errors import InputError
from torch_towers.ops.segments import (
    bincount,
    segment_chunks,
    segment_reduce,
    sparse_segment_reduce,
    unsorted_segment_reduce,
)

RNG = np.random.default_rng(0)
NO_WEIGHTS = np.zeros(0, np.float32)
SORTED = np.array([0, 0, 1, 1, 1, 3, 3, 3, 3], np.int32)
LOOSE = np.array([4, -1, 0, 0, 2, 4, 4, -3, 2], np.int64)


def floats(*shape: int) -> np.ndarray:
    values = RNG.normal(size=shape).astype(np.float32)
    values.reshape(-1)[2::7] = -0.0
    return values


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-9, 9, shape).astype(np.int32)


def segment_cases() -> list[Case]:
    rows: list[Case] = []
    for name in ("Sum", "Mean", "Prod", "Max", "Min"):
        op = f"Segment{name}"
        for data in (
            floats(9),
            floats(9, 3),
            floats(9, 2, 2).astype(np.float64),
            integers(9, 2),
            integers(9).astype(np.int64),
        ):
            rows.append(case(op, data=data, segment_ids=SORTED, batched=False, label=f"{data.dtype}{data.shape}"))
        rows.append(
            case(
                op,
                data=floats(9),
                segment_ids=SORTED.astype(np.int64) + 2,
                batched=False,
                label="int64 ids, gap in front",
            )
        )
        rows.append(case(op, data=floats(0, 3), segment_ids=SORTED[:0], batched=False, label="empty"))
    for name in ("Sum", "Prod", "Max", "Min"):
        op = f"UnsortedSegment{name}"
        for data in (
            floats(9),
            floats(9, 3),
            floats(9, 2, 2).astype(np.float64),
            integers(9, 2),
            integers(9).astype(np.int64),
        ):
            rows.append(
                case(
                    op, "num_segments", data=data, segment_ids=LOOSE, num_segments=6, label=f"{data.dtype}{data.shape}"
                )
            )
        rows.append(
            case(
                op,
                data=floats(3, 3, 2),
                segment_ids=LOOSE.reshape(3, 3).astype(np.int32),
                num_segments=np.int32(5),
                label="ids [3, 3]",
            )
        )
        rows.append(case(op, data=floats(0, 2), segment_ids=LOOSE[:0], num_segments=np.int64(2), label="empty"))
    for op, more in (("SegmentSum", {}), ("SegmentMean", {}), ("UnsortedSegmentSum", {"num_segments": np.int32(4)})):
        rows.append(
            case(
                op, data=np.full((3, 2), -0.0, np.float32), segment_ids=SORTED[1:4], batched=False, label="-0.0", **more
            )
        )
    table = floats(50, 7)
    for name in ("Sum", "Mean", "SqrtN"):
        op = f"SparseSegment{name}"
        for length in (1, 2, 3, 7, 8, 9, 10, 11, 16, 17, 18, 26, 33):
            picked, ids = RNG.integers(0, 50, length + 3), np.array([1] * length + [2, 4, 4])
            rows.append(
                case(
                    op,
                    data=table,
                    indices=picked.astype(np.int32),
                    segment_ids=ids.astype(np.int32),
                    batched=False,
                    label=f"{length} rows",
                )
            )
        rows.append(
            case(
                op,
                data=table.astype(np.float64),
                indices=picked,
                segment_ids=ids,
                batched=False,
                label="float64, int64",
            )
        )
        rows.append(
            case(op, data=table.astype(np.float16), indices=picked, segment_ids=ids, batched=False, label="float16")
        )
        rows.append(
            case(
                op,
                data=table.astype(np.float16),
                indices=picked,
                segment_ids=ids,
                batched=False,
                attrs={"sparse_gradient": True},
            )
        )
        rows.append(
            case(op, data=floats(5, 2, 3), indices=picked[:0], segment_ids=ids[:0], batched=False, label="empty")
        )
        rows.append(
            case(
                f"{op}WithNumSegments",
                "num_segments",
                data=table,
                indices=picked,
                segment_ids=ids,
                num_segments=9,
                batched=False,
            )
        )
        rows.append(
            case(
                f"{op}WithNumSegments",
                data=table,
                indices=picked,
                segment_ids=ids,
                num_segments=np.int64(5),
                batched=False,
            )
        )
    return rows


def bincount_cases() -> list[Case]:
    rows: list[Case] = []
    values = np.array([1, 2, 2, 5, 9, 0], np.int32)
    splits, indices = (
        np.array([0, 2, 2, 6], np.int64),
        np.array([[0, 0], [0, 1], [2, 0], [2, 1], [2, 2], [2, 5]], np.int64),
    )
    for binary in (False, True):
        attrs = {"binary_output": binary}
        for dtype in (np.int32, np.int64):
            size = dtype(6)
            rows.append(
                case("DenseBincount", "size", input=values.astype(dtype), size=size, weights=NO_WEIGHTS, attrs=attrs)
            )
            rows.append(
                case(
                    "DenseBincount",
                    "size",
                    input=values.reshape(2, 3).astype(dtype),
                    size=size,
                    weights=NO_WEIGHTS.astype(np.int64),
                    attrs=attrs,
                )
            )
            rows.append(
                case(
                    "DenseBincount",
                    "size",
                    input=values.reshape(2, 3).astype(dtype),
                    size=size,
                    weights=floats(2, 3),
                    attrs=attrs,
                )
            )
            rows.append(
                case(
                    "DenseBincount",
                    input=values.astype(dtype),
                    size=size,
                    weights=floats(6),
                    attrs=attrs,
                    label="size fed",
                )
            )
            rows.append(
                case(
                    "RaggedBincount",
                    "size",
                    splits=splits,
                    values=values.astype(dtype),
                    size=size,
                    weights=floats(6),
                    attrs=attrs,
                    batched=False,
                )
            )
            rows.append(
                case(
                    "RaggedBincount",
                    splits=splits,
                    values=values.astype(dtype),
                    size=size,
                    weights=NO_WEIGHTS,
                    attrs=attrs,
                    batched=False,
                )
            )
            rows.append(
                case(
                    "SparseBincount",
                    "size",
                    indices=indices,
                    values=values.astype(dtype),
                    dense_shape=np.array([3, 6]),
                    size=size,
                    weights=NO_WEIGHTS,
                    attrs=attrs,
                    batched=False,
                )
            )
            rows.append(
                case(
                    "SparseBincount",
                    "size",
                    indices=indices[:, 1:],
                    values=values.astype(dtype),
                    dense_shape=np.array([6]),
                    size=size,
                    weights=floats(6),
                    attrs=attrs,
                    batched=False,
                )
            )
        rows.append(
            case(
                "DenseBincount",
                "size",
                input=np.zeros((0, 3), np.int64),
                size=np.int64(4),
                weights=NO_WEIGHTS,
                attrs=attrs,
                label="empty",
            )
        )
    rows.append(case("Bincount", "size", arr=values, size=np.int32(6), weights=NO_WEIGHTS))
    rows.append(case("Bincount", arr=values, size=np.int32(6), weights=floats(6)))
    rows.append(case("Bincount", "size", arr=values.reshape(2, 3), size=np.int32(6), weights=integers(2, 3)))
    return rows


def rounding(op: str, numbers: np.ndarray, terms: int) -> float:
    """What another order of a segment's additions may change: each of `terms` rounds by half an ulp of at most the sum of all sizes.

    A mean or a root adds a division. Products of `terms` numbers round in the same way, at most at the product of all sizes.
    """
    if (
        numbers.dtype.kind != "f"
        or not numbers.size
        or not any(word in op for word in ("Sum", "Mean", "SqrtN", "Prod", "Bincount"))
    ):
        return 0.0
    sizes = np.abs(numbers.astype(np.float64)).reshape(len(numbers), -1)
    largest = float(np.maximum(sizes, 1).prod(0).max() if "Prod" in op else sizes.sum(0).max())
    return (terms + 2) * float(np.finfo(numbers.dtype).eps) / 2 * largest


def bounded(row: Case) -> Case:
    data = row.operands.get("data", row.operands.get("weights", NO_WEIGHTS))
    picked = row.operands.get("indices") if row.op.startswith("SparseSegment") else None
    terms = data.size if picked is None else len(picked)
    numbers = data.reshape(-1) if "Bincount" in row.op or "Unsorted" in row.op else data
    return replace(row, absolute=rounding(row.op, numbers if picked is None else data[picked], terms))


CASES: list[Case] = [bounded(row) for row in segment_cases() + bincount_cases()]


@pytest.mark.parametrize("row", CASES, ids=str)
def test_case(row: Case) -> None:
    check_case(row)


REDUCTIONS = {"sum": tf.sparse.segment_sum, "mean": tf.sparse.segment_mean, "sqrtn": tf.sparse.segment_sqrt_n}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(REDUCTIONS)), st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 2**31))
def test_sparse_segments_of_any_length(reduction: str, lengths: list[int], seed: int) -> None:
    """The order of TensorFlow's additions changes with a segment's length, and with the processor."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(lengths)), lengths)
    data, picked = rng.normal(size=(20, 3)).astype(np.float32), rng.integers(0, 20, ids.size)
    theirs = REDUCTIONS[reduction](data, picked, ids).numpy()
    table, rows, segments = map(torch.from_numpy, (data, picked, ids))
    ours = sparse_segment_reduce(table, rows, *segment_chunks(rows, segments), reduction=reduction).numpy()
    assert_equal(torch.from_numpy(ours), theirs, absolute=rounding("Sum", data[picked], max(lengths)))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(REDUCTIONS)), st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 40), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_sums_without_a_copy_of_the_rows(
    reduction: str, lengths: list[int], width: int, zeros: bool, seed: int
) -> None:
    """The fast path is bit-exact with the step-by-step path, which is used when gradients are tracked."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(20, width)).astype(np.float32)
    if zeros:
        data[rng.random(data.shape) < 0.5] = -0.0
    segments = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    rows, table = torch.from_numpy(rng.integers(0, 20, len(segments))), torch.from_numpy(data)
    plan = segment_chunks(rows, segments, len(lengths))
    fast = sparse_segment_reduce(table, rows, *plan, reduction=reduction)
    slow = sparse_segment_reduce(table.clone().requires_grad_(), rows, *plan, reduction=reduction)
    assert fast.numpy().tobytes() == slow.detach().numpy().tobytes()


def test_rows_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_towers.ops.segments._reduce", None)  # makes the slow path fail
    rows, segments = torch.tensor([1, 0, 1]), torch.tensor([0, 0, 2])
    plan = segment_chunks(rows, segments)
    found = sparse_segment_reduce(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), rows, *plan, reduction="mean")
    assert found.tolist() == [[2.0, 3.5], [0.0, 0.0], [3.0, 5.0]]


SORTED_REDUCTIONS = {
    "sum": tf.math.segment_sum,
    "mean": tf.math.segment_mean,
    "prod": tf.math.segment_prod,
    "max": tf.math.segment_max,
    "min": tf.math.segment_min,
}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(SORTED_REDUCTIONS)),
    st.lists(st.integers(0, 70), min_size=1, max_size=4),
    st.integers(1, 20),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**31),
)
def test_segments_of_any_length(reduction: str, lengths: list[int], columns: int, dtype: type, seed: int) -> None:
    """Eigen adds long segments in another order than short ones, and whole packets of columns in another than the rest: as wide
    as the processor's."""
    ids = np.repeat(np.arange(len(lengths)), lengths)
    data = np.random.default_rng(seed).normal(size=(ids.size, columns)).astype(dtype)
    theirs = SORTED_REDUCTIONS[reduction](data, ids).numpy()
    ours = segment_reduce(torch.from_numpy(data), torch.from_numpy(ids), reduction=reduction).numpy()
    absolute = rounding(reduction.title(), data, max(lengths))
    assert_equal(
        torch.from_numpy(ours),
        theirs,
        absolute=0 if reduction == "prod" else absolute,
        ulp=max(lengths) + 1 if reduction == "prod" else 0,
    )


REFUSED = [
    (lambda data, ids: tf.math.segment_sum(data, ids), [0, 2, 1]),
    (lambda data, ids: tf.math.segment_mean(data, ids), [-1, 0, 1]),
    (lambda data, ids: tf.math.unsorted_segment_max(data, ids, 3), [0, 3, 1]),
    (lambda data, ids: tf.sparse.segment_sum(data, ids, [0, 0, 1]), [0, 3, 1]),
    (lambda data, ids: tf.sparse.segment_sum(data, ids, [0, 0, 1]), [0, -1, 1]),
    (lambda data, ids: tf.sparse.segment_mean(data, [0, 1, 1], ids), [0, 2, 1]),
    (lambda data, ids: tf.sparse.segment_mean(data, [0, 1, 1], ids, num_segments=2), [0, 1, 2]),
    (lambda data, ids: tf.raw_ops.DenseBincount(input=ids, size=4, weights=[1.0, 2.0, 3.0]), [0, -1, 2]),
]


@pytest.mark.parametrize(("function", "ids"), REFUSED)
def test_what_tensorflow_refuses_is_refused(function, ids: list[int]) -> None:
    data, good, bad = floats(3, 2), np.array([0, 1, 1], np.int32), np.array(ids, np.int32)
    program = check_function(function, [{"data": data, "ids": good}])
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(tf.constant(data), tf.constant(bad))
    with pytest.raises(InputError):
        run(program, {"data": data, "ids": bad})


class Both(torch.nn.Module):
    def forward(self, data: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sums = unsorted_segment_reduce(data, ids, 4, reduction="sum")
        return sums, bincount(ids, 4, torch.zeros(0), binary_output=True)


def test_unsorted_segments_and_histograms_export_whole() -> None:
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(
        Both(), (torch.randn(5, 2), torch.tensor([0, 3, 1, 1, 2])), dynamic_shapes=({0: rows}, {0: rows})
    )
    data, ids = torch.randn(7, 2), torch.tensor([3, 3, 1, 0, 0, 3, 2])
    for ours, theirs in zip(exported.module()(data, ids), Both()(data, ids), strict=True):
        assert torch.equal(ours, theirs)


def test_row_lengths_have_a_rank() -> None:
    """`row_lengths()` of a ragged tensor made of row ids is a histogram, of as many bins as the graph computes."""

    def lengths(x: Any) -> Any:
        counts = tf.strings.split(x).row_lengths()
        return tf.cast(counts, tf.float32)[..., tf.newaxis], tf.reduce_sum(tf.ones_like(counts), -1), tf.rank(counts)

    check_function(lengths, [{"x": [b"a b c", b"", b"d"]}, {"x": [b""]}])


def test_a_histogram_of_rows_has_a_rank() -> None:
    def histogram(x: Any) -> Any:
        size = tf.reduce_max(x) + 1
        return tf.raw_ops.DenseBincount(input=x, size=size, weights=NO_WEIGHTS)[..., ::-1]

    check_function(histogram, [{"x": np.array([[1, 2], [0, 2]])}, {"x": np.array([[5, 5]])}])
