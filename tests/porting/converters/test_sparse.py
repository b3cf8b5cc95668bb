"""Sparse tensors, and what is looked up with them, against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.witness import Case, as_array, case, check_case, tf

INDICES = np.array([[0, 1], [0, 3], [2, 0], [3, 3]])
SHAPE = np.array([5, 4])
FLOATS = np.array([1.5, -0.0, np.nan, -4], np.float32)
STRINGS = as_array([b"a", b"", b"c\0", b"\xff"])
INTEGERS = np.array([7, -8, 9, 1 << 40])


def layout_cases() -> list[Case]:
    rows: list[Case] = []
    for new_shape in ([-1], [4, 5], [2, -1, 2], [20, 1], [10, 2]):
        rows.append(
            case(
                "SparseReshape",
                "new_shape",
                input_indices=INDICES,
                input_shape=SHAPE,
                new_shape=np.array(new_shape),
                batched=False,
            )
        )
        rows.append(
            case(
                "SparseReshape",
                input_indices=INDICES,
                input_shape=SHAPE,
                new_shape=np.array(new_shape),
                batched=False,
                free=False,
            )
        )
    rows.append(
        case(
            "SparseReshape",
            "new_shape",
            input_indices=INDICES[:0],
            input_shape=SHAPE,
            new_shape=np.array([4, -1]),
            batched=False,
        )
    )
    rows.append(
        case(
            "SparseReshape",
            "new_shape",
            input_indices=INDICES[:0],
            input_shape=SHAPE * 0,
            new_shape=np.array([3, 0]),
            batched=False,
        )
    )
    for values, default in (
        (FLOATS, np.float32(9)),
        (STRINGS, b"none"),
        (INTEGERS, np.int64(-1)),
        (INTEGERS > 0, np.bool_(True)),
    ):
        for dtype in (np.int32, np.int64):
            operands = {
                "sparse_indices": INDICES.astype(dtype),
                "output_shape": SHAPE.astype(dtype),
                "sparse_values": values,
                "default_value": default,
            }
            rows.append(case("SparseToDense", "output_shape", "default_value", batched=False, **operands))
            rows.append(case("SparseToDense", batched=False, free=False, label=f"{values.dtype} all fed", **operands))
        rows.append(
            case(
                "SparseFillEmptyRows",
                indices=INDICES,
                values=values,
                dense_shape=SHAPE,
                default_value=default,
                batched=False,
            )
        )
    one = {
        "sparse_indices": np.array([3, 1], np.int32),
        "output_shape": np.array([6], np.int32),
        "sparse_values": FLOATS[:2],
        "default_value": FLOATS[3],
    }
    rows.append(case("SparseToDense", "output_shape", attrs={"validate_indices": False}, batched=False, **one))
    rows.append(
        case(
            "SparseToDense",
            "output_shape",
            attrs={"validate_indices": True},
            batched=False,
            **{**one, "sparse_indices": np.array([1, 3], np.int32)},
        )
    )
    rows.append(
        case(
            "SparseToDense",
            "output_shape",
            attrs={"validate_indices": True},
            batched=False,
            **{**one, "sparse_indices": np.int32(2), "sparse_values": FLOATS[0]},
            label="one index",
        )
    )
    rows.append(
        case(
            "SparseToDense",
            "output_shape",
            attrs={"validate_indices": True},
            batched=False,
            **{**one, "sparse_values": FLOATS[0], "sparse_indices": np.array([1, 3], np.int32)},
            label="one value",
        )
    )
    shuffled = INDICES[[2, 0, 3, 1]]
    rows.append(
        case(
            "SparseFillEmptyRows",
            indices=shuffled,
            values=STRINGS,
            dense_shape=SHAPE,
            default_value=b"x",
            batched=False,
            label="unsorted",
        )
    )
    rows.append(
        case(
            "SparseFillEmptyRows",
            indices=INDICES[:0],
            values=STRINGS[:0],
            dense_shape=SHAPE,
            default_value=b"x",
            batched=False,
            label="empty",
        )
    )
    rows.append(
        case(
            "SparseFillEmptyRows",
            indices=INDICES[:0],
            values=STRINGS[:0],
            dense_shape=SHAPE * 0,
            default_value=b"x",
            batched=False,
            label="no rows",
        )
    )
    return rows


def cross_cases() -> list[Case]:
    other = np.array([[0, 0], [1, 0], [2, 0], [2, 1]])
    sparse = {"indices": (INDICES, other), "shapes": (SHAPE, SHAPE)}
    dense = (
        as_array([[b"p"], [b"q"], [b""], [b"s"], [b"t"]]),
        np.array([[1, 2], [3, 4], [-5, 6], [7, 1 << 40], [9, 0]]),
    )
    none: dict[str, Any] = {"indices": [], "values": [], "shapes": []}
    rows: list[Case] = []
    for strong in (False, True):
        for buckets in (0, 7, 1000):
            constants = {"num_buckets": np.int64(buckets), "strong_hash": strong, "salt": np.array([137, -133])}
            columns = dense[:1] if strong else dense  # TensorFlow crashes on a strong hash of dense integers
            rows.append(
                case(
                    "SparseCrossHashed",
                    *constants,
                    values=(STRINGS, INTEGERS),
                    dense_inputs=columns,
                    batched=False,
                    **sparse,
                    **constants,
                )
            )
            rows.append(
                case("SparseCrossHashed", *constants, dense_inputs=columns, attrs=none, label="dense", **constants)
            )
            rows.append(
                case(
                    "SparseCrossHashed",
                    *constants,
                    values=(STRINGS, INTEGERS),
                    attrs={"dense_inputs": []},
                    batched=False,
                    **sparse,
                    **constants,
                )
            )
    rows.append(
        case(
            "SparseCrossV2", "sep", values=(STRINGS, INTEGERS), dense_inputs=dense, sep=b"-x-", batched=False, **sparse
        )
    )
    rows.append(case("SparseCrossV2", values=(STRINGS, INTEGERS), dense_inputs=dense, sep=b"", batched=False, **sparse))
    rows.append(case("SparseCrossV2", "sep", dense_inputs=dense, attrs=none, sep=b"_X_"))
    for hashed in (True, False):
        for key in (0xDECAFCAFFE, 0, -5):
            for buckets in (0, 100):
                attrs = {
                    "hashed_output": hashed,
                    "num_buckets": buckets,
                    "hash_key": key,
                    "out_type": tf.int64 if hashed else tf.string,
                    "internal_type": tf.int64,
                }
                rows.append(
                    case(
                        "SparseCross",
                        values=(STRINGS, INTEGERS),
                        dense_inputs=dense,
                        attrs=attrs,
                        batched=False,
                        **sparse,
                    )
                )
                strings = {"values": (STRINGS, STRINGS[::-1].copy()), "dense_inputs": (dense[0],)}
                rows.append(
                    case("SparseCross", attrs={**attrs, "internal_type": tf.string}, batched=False, **strings, **sparse)
                )
    return rows


def arithmetic_cases() -> list[Case]:
    rows: list[Case] = []
    shuffled, other = INDICES[[2, 0, 3, 1]], np.array([[0, 0], [0, 3], [4, 2]])
    sparse = {"indices": INDICES, "shape": SHAPE}
    numbers = np.array([1.5, -0.0, 3, -4], np.float32)
    inputs = {"input_indices": INDICES, "input_shape": SHAPE}
    for values in (FLOATS, STRINGS, INTEGERS):
        rows.append(
            case("SparseReorder", input_indices=shuffled, input_values=values, input_shape=SHAPE, batched=False)
        )
        for axis in (0, 1, -1):
            shapes = (SHAPE, SHAPE + np.array([1, 0] if axis == 0 else [0, 1]))
            rows.append(
                case(
                    "SparseConcat",
                    indices=(INDICES, other),
                    values=(values, values[:3]),
                    shapes=shapes,
                    attrs={"concat_dim": axis},
                    batched=False,
                )
            )
        for start, size in (([0, 0], [5, 4]), ([0, 1], [3, 2]), ([2, 0], [9, 9]), ([5, 0], [1, 4])):
            rows.append(
                case(
                    "SparseSlice",
                    "start",
                    "size",
                    values=values,
                    start=np.array(start),
                    size=np.array(size),
                    batched=False,
                    **sparse,
                )
            )
        rows.append(
            case(
                "SparseSlice",
                values=values,
                start=np.array([1, 1]),
                size=np.array([2, 3]),
                batched=False,
                free=False,
                **sparse,
            )
        )
        for axis, count in ((0, 1), (0, 3), (1, 2), (1, 3)):
            rows.append(
                case(
                    "SparseSplit",
                    "split_dim",
                    split_dim=np.int64(axis),
                    values=values,
                    attrs={"num_split": count},
                    batched=False,
                    **sparse,
                )
            )
    rows.append(
        case("SparseSplit", split_dim=np.int64(1), values=FLOATS, attrs={"num_split": 2}, batched=False, **sparse)
    )
    dense = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    for adjoint_a, adjoint_b in ((False, False), (True, False), (False, True), (True, True)):
        for dtype in (np.int32, np.int64):
            right = dense[:, :3] if adjoint_a else np.ascontiguousarray(dense.T)
            right = np.ascontiguousarray(right.T) if adjoint_b else right
            attrs = {"adjoint_a": adjoint_a, "adjoint_b": adjoint_b}
            rows.append(
                case(
                    "SparseTensorDenseMatMul",
                    a_indices=shuffled.astype(dtype),
                    a_values=numbers,
                    a_shape=SHAPE,
                    b=right,
                    attrs=attrs,
                    batched=False,
                    free=False,
                )
            )
    rows.append(
        case(
            "SparseTensorDenseMatMul",
            a_indices=INDICES,
            a_values=numbers,
            a_shape=SHAPE,
            b=np.random.default_rng(2).normal(size=(4, 40)).astype(np.float32),
            batched=False,
        )
    )
    for dtype in (np.int32, np.int64):
        rows.append(
            case(
                "SparseTensorDenseAdd",
                a_indices=INDICES.astype(dtype),
                a_values=FLOATS,
                a_shape=SHAPE.astype(dtype),
                b=dense,
                batched=False,
            )
        )
    for threshold in (0, 2, 5):
        rows.append(
            case(
                "SparseAdd",
                "thresh",
                a_indices=INDICES,
                a_values=FLOATS,
                a_shape=SHAPE,
                b_indices=other,
                b_values=numbers[1:],
                b_shape=SHAPE,
                thresh=np.float32(threshold),
                batched=False,
            )
        )
        rows.append(
            case(
                "SparseAdd",
                a_indices=INDICES,
                a_values=INTEGERS,
                a_shape=SHAPE,
                b_indices=other,
                b_values=-INTEGERS[1:],
                b_shape=SHAPE,
                thresh=np.int64(threshold),
                batched=False,
            )
        )
    for name in ("Add", "Mul", "Div"):
        for right in (dense, dense[0], dense[:, :1], dense[:1, :1]):
            rows.append(
                case(
                    f"SparseDenseCwise{name}",
                    sp_indices=INDICES,
                    sp_values=FLOATS,
                    sp_shape=SHAPE,
                    dense=right,
                    batched=False,
                    free=False,
                )
            )
        rows.append(
            case(
                f"SparseDenseCwise{name}",
                sp_indices=INDICES,
                sp_values=INTEGERS,
                sp_shape=SHAPE,
                dense=np.array([2, -3, 5, 3]),
                batched=False,
            )
        )
    for name in ("Sum", "Max"):
        for axes in ([0], [1], [-1], [0, 1], []):
            for keep in (False, True):
                for suffix in ("", "Sparse"):
                    rows.append(
                        case(
                            f"SparseReduce{name}{suffix}",
                            "reduction_axes",
                            input_values=numbers,
                            reduction_axes=np.array(axes, np.int32),
                            attrs={"keep_dims": keep},
                            batched=False,
                            label=f"{axes} {keep}",
                            **inputs,
                        )
                    )
        rows.append(
            case(
                f"SparseReduce{name}",
                "reduction_axes",
                input_values=INTEGERS,
                reduction_axes=np.int32(1),
                batched=False,
                **inputs,
            )
        )
    return rows


CASES: list[Case] = layout_cases() + cross_cases() + arithmetic_cases()


@pytest.mark.parametrize("row", CASES, ids=str)
def test_case(row: Case) -> None:
    check_case(row)
