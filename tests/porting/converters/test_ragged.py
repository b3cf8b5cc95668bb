"""Ragged tensors against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.conversion.convert import Context, convert
from porting.flat_graph.flatten import flatten
from porting.served import Served
from tests.witness import Case, as_array, case, check_case, check_function, port, run, saved_model_of, tf, trace
from torch_towers.errors import InputError
from torch_towers.ops.ragged import ragged_to_tensor

SPLITS = np.array([0, 2, 2, 5], np.int64)
OUTER = np.array([0, 1, 1, 3], np.int64)
ROWIDS = np.array([0, 0, 2, 2, 2], np.int64)
FLOATS = np.array([1, -0.0, np.nan, 4, 5], np.float32)
STRINGS = as_array([b"a", b"", b"c\0", b"d", b"\xff"])


def to_tensor(
    values: np.ndarray, default: Any, partitions: tuple[Any, ...], types: list[str], shape: Any, *constants: str
) -> Case:
    return case("RaggedTensorToTensor", "shape", "default_value", *constants, shape=shape, values=values, default_value=default,
                row_partition_tensors=partitions, attrs={"row_partition_types": types}, batched=False,
                label=f"{values.dtype}{values.shape} {'+'.join(types)} {np.asarray(shape).tolist()}")  # fmt: skip


def to_tensor_cases() -> list[Case]:
    rows: list[Case] = []
    one: list[tuple[tuple[Any, ...], list[str]]] = [
        ((SPLITS,), ["ROW_SPLITS"]), ((SPLITS.astype(np.int32),), ["ROW_SPLITS"]),
        ((np.int64(4), ROWIDS), ["FIRST_DIM_SIZE", "VALUE_ROWIDS"]), ((np.int64(3), ROWIDS), ["FIRST_DIM_SIZE", "VALUE_ROWIDS"]),
    ]  # fmt: skip
    for partitions, types in one:
        for shape in ([-1, -1], [-1, 2], [2, -1], [5, 4], [0, 3]):
            rows.append(to_tensor(FLOATS, np.float32(-1), partitions, types, np.array(shape, np.int64)))
            rows.append(to_tensor(STRINGS, b"pad", partitions, types, np.array(shape, np.int32)))
        rows.append(to_tensor(FLOATS, np.float32(-0.0), partitions, types, np.int64(-1)))
    two: list[tuple[tuple[Any, ...], list[str]]] = [
        ((OUTER, SPLITS), ["ROW_SPLITS", "ROW_SPLITS"]),
        ((OUTER, ROWIDS), ["ROW_SPLITS", "VALUE_ROWIDS"]),
        ((np.int64(3), np.array([0, 2, 2], np.int64), ROWIDS), ["FIRST_DIM_SIZE", "VALUE_ROWIDS", "VALUE_ROWIDS"]),
    ]
    for partitions, types in two:
        for shape in ([-1, -1, -1], [2, 1, 2], [4, 3, 4]):
            rows.append(to_tensor(STRINGS, b"", partitions, types, np.array(shape, np.int64)))
        rows.append(
            to_tensor(
                FLOATS.reshape(5, 1).repeat(2, 1),
                np.array([7, 8], np.float32),
                partitions,
                types,
                np.array([-1, -1, -1, 2]),
            )
        )
        rows.append(
            to_tensor(
                FLOATS.reshape(5, 1).repeat(2, 1),
                np.array([7], np.float32),
                partitions,
                types,
                np.array([-1, 2, -1, -1]),
            )
        )
    grid = np.arange(10).reshape(5, 2)
    rows.append(to_tensor(grid, np.int64(9), (SPLITS,), ["ROW_SPLITS"], np.array([-1, 2, 2])))
    rows.append(to_tensor(grid[:0], np.int64(9), (SPLITS * 0,), ["ROW_SPLITS"], np.array([-1, -1, 2])))
    rows.append(to_tensor(STRINGS[:0], b"x", (SPLITS * 0,), ["ROW_SPLITS"], np.array([-1, 3])))
    rows.append(to_tensor(STRINGS[:0], b"x", (SPLITS[:1],), ["ROW_SPLITS"], np.array([-1, -1])))
    rows.append(
        to_tensor(STRINGS[:0], b"x", (np.int64(2), ROWIDS[:0]), ["FIRST_DIM_SIZE", "VALUE_ROWIDS"], np.array([-1, 2]))
    )
    rows.append(case("RaggedTensorToTensor", shape=np.array([-1, 4]), values=FLOATS, default_value=np.float32(2), row_partition_tensors=(SPLITS,),
                     attrs={"row_partition_types": ["ROW_SPLITS"]}, batched=False, free=False, label="shape and default fed"))  # fmt: skip
    return rows


def test_padded_tensors_of_one_partition_have_the_same_rows() -> None:
    def build(values: Any, splits: Any) -> Any:
        ragged = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        rows, mask = (part.to_tensor(shape=[None, 4]) for part in (ragged, tf.ones_like(ragged)))
        return rows * mask, ragged.to_tensor()

    concrete = trace(build, {"values": np.float32([1.0]), "splits": SPLITS})
    model = saved_model_of(concrete, ["values", "splits"])
    graph, emitter = convert(flatten(model.graph("traced"), model.functions), Context(model, Served()))
    shapes = [emitter.known[ref].shape for ref in graph.outputs.values()]
    assert shapes[0] is not None and shapes[1] is not None
    assert shapes[0][1] == 4
    assert isinstance(shapes[1][1], str)
    assert shapes[0][0] == shapes[1][0]


def other_cases() -> list[Case]:
    rows: list[Case] = []
    grid = np.arange(10).reshape(5, 2)
    for dtype in (np.int32, np.int64):
        for index in (
            np.array([2, 0, 0, 1]),
            np.array([[2], [0]], np.int32),
            np.array([[[1, 2]], [[0, 0]]]),
            np.zeros((0, 2), np.int64),
        ):
            for values in (FLOATS, STRINGS, grid):
                for splits in ((SPLITS.astype(dtype),), (OUTER.astype(dtype), SPLITS.astype(dtype))):
                    rows.append(case("RaggedGather", params_nested_splits=splits, params_dense_values=values, indices=index, batched=False,
                                     attrs={"OUTPUT_RAGGED_RANK": len(splits) + index.ndim - 1}))  # fmt: skip
    for splits in ((SPLITS,), (SPLITS.astype(np.int32),), (OUTER, SPLITS)):
        for values in (FLOATS, STRINGS, grid, grid.reshape(5, 1, 2)):
            rows.append(case("RaggedTensorToSparse", rt_nested_splits=splits, rt_dense_values=values, batched=False))
    rows.append(case("RaggedTensorToSparse", rt_nested_splits=(SPLITS * 0,), rt_dense_values=FLOATS[:0], batched=False))
    for dtype in (np.int32, np.int64, np.float32, np.float64):
        attrs = {"Tsplits": tf.int32 if dtype == np.int32 else tf.int64}
        starts, limits, deltas = (
            np.array([0, 5, 8, -3], dtype),
            np.array([3, 5, -2, 9], dtype),
            np.array([2, 3, -3, 4], dtype),
        )
        rows.append(case("RaggedRange", starts=starts, limits=limits, deltas=deltas, attrs=attrs, label=dtype.__name__))
        rows.append(
            case(
                "RaggedRange",
                "starts",
                "deltas",
                starts=dtype(1),
                limits=limits,
                deltas=dtype(1),
                attrs=attrs,
                label=dtype.__name__,
            )
        )
        rows.append(
            case("RaggedRange", starts=dtype(1), limits=dtype(4), deltas=dtype(1), attrs=attrs, label=dtype.__name__)
        )
    rows.append(
        case(
            "RaggedRange",
            starts=np.array([0, 1], np.float32),
            limits=np.array([3, -1], np.float32),
            deltas=np.array([0.1, -0.3], np.float32),
        )
    )
    for values, default in ((FLOATS, np.float32(7)), (STRINGS, b"x")):
        for rowids in (ROWIDS, np.array([4, 0, 1, 0, 4])):
            rows.append(
                case(
                    "RaggedFillEmptyRows",
                    "nrows",
                    "default_value",
                    value_rowids=rowids,
                    values=values,
                    nrows=np.int64(6),
                    default_value=default,
                    batched=False,
                )
            )
        rows.append(
            case(
                "RaggedFillEmptyRows",
                value_rowids=ROWIDS[:0],
                values=values[:0],
                nrows=np.int64(2),
                default_value=default,
                batched=False,
            )
        )
    integers = np.array([1, -2, 3, 1 << 40, 5])
    sparse = {
        "sparse_indices": (np.array([[0, 0], [2, 1]]),),
        "sparse_values": (STRINGS[:2],),
        "sparse_shape": (np.array([3, 2]),),
    }
    columns = {"ragged_values": (STRINGS, integers), "dense_inputs": (integers[:3].reshape(3, 1),)}
    for hashed in (True, False):
        for order in ("RSRD", "DRRS"):
            for buckets, key in ((0, 0xDECAFCAFFE), (100, -3)):
                for splits in (tf.int32, tf.int64):
                    attrs = {"input_order": order, "hashed_output": hashed, "num_buckets": buckets, "hash_key": key,
                             "out_values_type": tf.int64 if hashed else tf.string, "out_row_splits_type": splits}  # fmt: skip
                    both = (
                        SPLITS[:4].astype(splits.as_numpy_dtype),
                    ) * 2  # TensorFlow crashes where their dtypes differ
                    rows.append(
                        case("RaggedCross", **columns, **sparse, ragged_row_splits=both, attrs=attrs, batched=False)
                    )
    return rows


CASES: list[Case] = to_tensor_cases() + other_cases()


@pytest.mark.parametrize("row", CASES, ids=str)
def test_case(row: Case) -> None:
    check_case(row)


BAD_PARTITIONS = [
    np.array([0, 2, 1, 5], np.int64),
    np.array([0, 2, 2, 4], np.int64),
    np.array([0, 2, 2, 6], np.int64),
]


@pytest.mark.parametrize("bad", BAD_PARTITIONS, ids=str)
def test_row_splits_that_contradict_the_values_are_refused(bad: np.ndarray) -> None:
    """TensorFlow reads past the end of the values, or asks an assertion beside this op; here the op itself refuses."""
    program = check_function(
        lambda x, s: tf.RaggedTensor.from_row_splits(x, s, validate=False).to_tensor(), [{"x": FLOATS, "s": SPLITS}]
    )
    with pytest.raises(InputError, match=r"[Rr]ow"):
        run(program, {"x": FLOATS, "s": bad})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=3), max_size=4), max_size=5), st.sampled_from([None, 0, 2, 6]))
def test_any_rows_of_strings(rows: list[list[bytes]], width: int | None) -> None:

    splits = np.cumsum([0, *map(len, rows)])
    values = as_array([item for row in rows for item in row]) if any(rows) else STRINGS[:0]
    ragged = tf.RaggedTensor.from_row_splits(tf.constant(values, tf.string), splits)
    theirs = ragged.to_tensor(b"-", shape=[None, width]).numpy()
    ours = ragged_to_tensor(
        values, as_array(b"-"), (torch.from_numpy(splits),), -1, -1 if width is None else width, types=("ROW_SPLITS",)
    )
    assert ours.shape == theirs.shape
    assert ours.tolist() == theirs.tolist()


# -- variants -----------------------------------------------------------------------------------------------------------

COVERED = {"RaggedTensorToVariant", "RaggedTensorFromVariant"}
raw: Any = tf.raw_ops
DEEP: dict[str, Any] = {
    "inner": np.array([0, 2, 2, 5, 6, 6, 9], np.int64),
    "outer": np.array([0, 1, 1, 6], np.int64),
    "values": np.arange(9, dtype=np.int64),
}


def encoded(values: Any, *splits: Any, batched: bool = True) -> Any:
    return raw.RaggedTensorToVariant(rt_nested_splits=list(splits), rt_dense_values=values, batched_input=batched)


def decoded(variants: Any, inner: int, rank: int, values: Any, splits: Any = tf.int64) -> list[Any]:
    found = raw.RaggedTensorFromVariant(
        encoded_ragged=variants, input_ragged_rank=inner, output_ragged_rank=rank, Tvalues=values.dtype, Tsplits=splits
    )
    return [*found[0], found[1]]


VARIANTS: dict[str, Any] = {
    "rows": lambda inner, outer, values: decoded(encoded(values, inner), 0, 1, values),
    "rows, rank left open": lambda inner, outer, values: decoded(encoded(values, inner), -1, 1, values),
    "one row": lambda inner, outer, values: decoded(encoded(values, inner)[0], 0, 0, values),
    "two axes": lambda inner, outer, values: decoded(tf.reshape(encoded(values, inner), [2, 3]), -1, 2, values),
    "three axes": lambda inner, outer, values: decoded(tf.reshape(encoded(values, inner), [2, 1, 3]), -1, 3, values),
    "empty": lambda inner, outer, values: decoded(encoded(values, inner)[:0], -1, 3, values),
    "deep": lambda inner, outer, values: decoded(encoded(values, outer, inner), 1, 2, values),
    "whole": lambda inner, outer, values: decoded(encoded(values, outer, inner, batched=False), 2, 2, values),
    "stacked": lambda inner, outer, values: decoded(
        tf.stack([encoded(values, outer, inner, batched=False)] * 2), 2, 3, values
    ),
    "int32": lambda inner, outer, values: decoded(
        encoded(values, tf.cast(outer, tf.int32), tf.cast(inner, tf.int32)), 1, 2, values, tf.int32
    ),
    "dense rows": lambda inner, outer, values: decoded(encoded(tf.reshape(values, [3, 3])), 0, 1, values),
    "dense": lambda inner, outer, values: decoded(encoded(values, batched=False), 0, 0, values),
}


@pytest.mark.parametrize("strings", [False, True], ids=["int64", "string"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_variants(name: str, strings: bool) -> None:
    values = as_array([b"a", b"", b"\xff", b"d", b"e", b"f\0", b"g", b"h", b"i"]) if strings else DEEP["values"]
    check_function(VARIANTS[name], [{**DEEP, "values": values}], free=False)


MAPS: dict[str, Any] = {
    "reversed": lambda row: tf.reverse(row, [0]),
    "reduced": lambda row: tf.reduce_sum(row),
    "filtered": lambda row: tf.boolean_mask(row, row % 2 == 0),
}


@pytest.mark.parametrize("name", sorted(MAPS))
def test_map_over_rows(name: str) -> None:
    def build(splits: Any, values: Any) -> Any:
        rows = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        spec = tf.TensorSpec([], tf.int64) if name == "reduced" else tf.RaggedTensorSpec([None], tf.int64, 0)
        mapped = tf.map_fn(MAPS[name], rows, fn_output_signature=spec)
        return tf.nest.flatten(mapped, expand_composites=True)

    full = {"splits": DEEP["inner"], "values": DEEP["values"]}
    none = {"splits": np.zeros(1, np.int64), "values": DEEP["values"][:0]}
    check_function(build, [full, {"splits": np.array([0, 4]), "values": np.arange(4)}, none])


def test_map_over_ragged_rows() -> None:
    def build(inner: Any, outer: Any, values: Any) -> Any:
        rows = tf.RaggedTensor.from_nested_row_splits(values, [outer, inner], validate=False)
        return tf.nest.flatten(tf.map_fn(lambda row: tf.concat([row, row], 1), rows), expand_composites=True)

    check_function(build, [DEEP])


@pytest.mark.parametrize("bad", [[0, 10], [1, 9], [0, 3, 2, 9], [], [0, 4]], ids=str)
@pytest.mark.parametrize("batched", [False, True])
def test_splits_that_do_not_fit_are_not_made_variants(bad: list[int], batched: bool) -> None:
    def build(splits: Any, values: Any) -> Any:
        return decoded(encoded(values, splits, batched=batched), -1, 1, values)

    program = check_function(build, [{"splits": np.array([0, 9]), "values": DEEP["values"]}])
    feeds = {"splits": np.array(bad, np.int64), "values": DEEP["values"]}
    with pytest.raises(tf.errors.InvalidArgumentError):
        build(**{name: tf.constant(value) for name, value in feeds.items()})
    with pytest.raises(InputError, match="Invalid ragged splits"):
        run(program, feeds)


def wrong_variants() -> list[Any]:
    return [
        lambda inner, outer, values: decoded(encoded(values, inner), 1, 2, values),
        lambda inner, outer, values: decoded(encoded(values, inner), 0, 1, tf.constant(0.0)),
        lambda inner, outer, values: decoded(encoded(values, outer, inner), 1, 2, values, tf.int32),
        lambda inner, outer, values: decoded(
            tf.stack([encoded(values, batched=False), encoded(tf.reshape(values, [3, 3]), batched=False)]), 0, 1, values
        ),
    ]


@pytest.mark.parametrize("index", range(len(wrong_variants())))
def test_variants_of_another_kind_are_refused(index: int) -> None:
    build = wrong_variants()[index]
    with pytest.raises(tf.errors.InvalidArgumentError):
        build(**{name: tf.constant(value) for name, value in DEEP.items()})
    with pytest.raises(InputError):
        run(port(trace(build, DEEP), list(DEEP)), DEEP)
