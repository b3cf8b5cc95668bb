"""Arithmetic, comparisons, dtypes and reductions against TensorFlow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.conversion.convert import Context, convert
from porting.errors import PortingError
from tests.witness import Case, assert_equal, case, check_case, check_function, run, tf
from torch_towers.errors import InputError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.ops.math import to_integer
from torch_towers.ops.reductions import top_k
from torch_towers.program.program import Program

RNG = np.random.default_rng(0)
NAN, INF = np.nan, np.inf
BFLOAT16 = tf.bfloat16.as_numpy_dtype
FLOAT_DTYPES = (np.float32, np.float64, np.float16, BFLOAT16)
INTEGER_DTYPES = (np.int8, np.int16, np.int32, np.int64, np.uint8)
EDGES = np.array([NAN, INF, -INF, -0.0, 0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 1e-30, -1e30], np.float32)
WIDE = np.concatenate([EDGES, RNG.normal(size=52).astype(np.float32) * 8])
SMALL = np.concatenate([EDGES[:9], RNG.uniform(-1, 1, 55).astype(np.float32)])
INTEGERS = np.array([-8, -7, -1, 0, 1, 5, 7, 100, -100, 127], np.int64)

EIGEN = "Eigen's vectorized approximation and torch's (SLEEF) are both within a few ulp of the true value"
ORDER = "the same sum in another order"


def as_dtype(values: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return values.astype(dtype)


# op: (ulp in float32 and float64, the values)
EXACT_FLOATS = ("Neg", "Abs", "Sign", "Square", "Ceil", "Floor", "Round", "Rint")
APPROXIMATE: dict[str, tuple[float, np.ndarray]] = {
    "Sqrt": (1, WIDE), "Reciprocal": (1, WIDE), "Inv": (1, WIDE), "Rsqrt": (2, WIDE), "Exp": (2, WIDE), "Expm1": (3, WIDE), "Log": (2, np.abs(WIDE)), "Log1p": (3, np.abs(WIDE)),
    "Erf": (3, WIDE), "Erfc": (8, WIDE), "Erfinv": (8, SMALL), "Ndtri": (16, np.abs(SMALL)), "Lgamma": (8, np.abs(WIDE)),
    "Digamma": (16, np.abs(WIDE) + 2), "Sin": (2, WIDE[5:10]), "Cos": (2, WIDE[5:10]), "Tan": (3, WIDE[5:10]),
    "Asin": (3, SMALL), "Acos": (3, SMALL), "Atan": (3, WIDE), "Sinh": (3, SMALL), "Cosh": (3, SMALL), "Tanh": (6, WIDE),
    "Asinh": (4, WIDE), "Acosh": (4, np.abs(WIDE) + 1), "Atanh": (4, SMALL), "Sigmoid": (4, WIDE),
}  # fmt: skip


def unary_cases() -> list[Case]:
    rows = [
        case(op, x=as_dtype(WIDE, dtype), label=np.dtype(dtype).name)
        for op in EXACT_FLOATS
        for dtype in (np.float32, np.float64)
    ]
    for op, (ulp, values) in APPROXIMATE.items():
        rows.append(
            case(op, x=values, ulp=ulp, absolute=3e-7 if op == "Erfinv" else 1e-37, reason=EIGEN, label="float32")
        )
        wide = values[np.isfinite(values)] if op == "Erf" else values  # TensorFlow's float64 Erf of infinity is NaN
        rows.append(case(op, x=wide.astype(np.float64), ulp=ulp, absolute=1e-300, reason=EIGEN, label="float64"))
    for op in ("Neg", "Abs", "Sign", "Square", "Ceil", "Exp", "Tanh", "Sigmoid", "Rsqrt", "Log"):
        for dtype in (np.float16, BFLOAT16):
            values = np.abs(SMALL) if op in ("Log", "Rsqrt") else SMALL
            rows.append(case(op, x=as_dtype(values, dtype), ulp=1, reason=EIGEN, label=np.dtype(dtype).name))
    rows += [
        case(op, x=INTEGERS.astype(dtype), label=np.dtype(dtype).name)
        for op in ("Neg", "Abs", "Sign", "Square")
        for dtype in (np.int32, np.int64)
    ]
    rows += [
        case(op, x=as_dtype(EDGES, dtype), label=np.dtype(dtype).name)
        for op in ("IsNan", "IsInf", "IsFinite")
        for dtype in FLOAT_DTYPES
    ]
    rows.append(case("LogicalNot", x=np.array([True, False])))
    rows += [case("Invert", x=INTEGERS.astype(dtype), label=np.dtype(dtype).name) for dtype in INTEGER_DTYPES]
    rows.append(case("Neg", x=np.zeros((0, 3), np.float32), label="empty"))
    return rows


def binary_cases() -> list[Case]:
    a, b = np.meshgrid(EDGES, EDGES)
    rows: list[Case] = []
    for op in ("AddV2", "Add", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "MulNoNan", "Maximum", "Minimum",
               "SquaredDifference", "Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"):  # fmt: skip
        rows += [case(op, x=as_dtype(a, d), y=as_dtype(b, d), label=np.dtype(d).name) for d in (np.float32, np.float64)]
        rows.append(case(op, "y", x=a, y=np.float32(0.1), label="by a literal"))
        rows.append(case(op, "x", x=np.float32(2.5), y=a, label="of a literal"))
    rows.append(
        case("RealDiv", "x", x=np.float32(7), y=np.linspace(1, 99, 197).astype(np.float32), label="a number by many")
    )
    for op in ("AddV2", "Mul", "Sub", "RealDiv", "Maximum"):
        for dtype in (np.float16, BFLOAT16):
            rows.append(case(op, x=as_dtype(a, dtype), y=as_dtype(b, dtype), absolute=1e-30, reason="the sign of a zero",
                             label=np.dtype(dtype).name))  # fmt: skip
            rows.append(
                case(op, "y", x=as_dtype(a, dtype), y=np.asarray(0.1, dtype), label=f"{np.dtype(dtype).name} literal")
            )
    for op in (
        "AddV2",
        "Sub",
        "Mul",
        "Maximum",
        "Minimum",
        "Equal",
        "NotEqual",
        "Less",
        "GreaterEqual",
        "SquaredDifference",
    ):
        for dtype in (np.int32, np.int64):
            x, y = np.meshgrid(INTEGERS.astype(dtype), INTEGERS.astype(dtype))
            rows.append(case(op, x=x, y=y, label=np.dtype(dtype).name))
    for dtype in (np.int8, np.uint8, np.int16):
        x, y = np.meshgrid(as_dtype(INTEGERS, dtype), as_dtype(INTEGERS, dtype))
        rows += [case(op, x=x, y=y, label=np.dtype(dtype).name) for op in ("AddV2", "Sub", "Mul")]
    divisors = INTEGERS[INTEGERS != 0]
    for op in ("Div", "FloorDiv", "TruncateDiv", "FloorMod", "Mod", "TruncateMod"):
        for dtype in (np.int32, np.int64):
            x, y = np.meshgrid(INTEGERS.astype(dtype), divisors.astype(dtype))
            rows.append(case(op, x=x, y=y, label=np.dtype(dtype).name))
            rows.append(case(op, "y", x=x, y=dtype(-3), label=f"{np.dtype(dtype).name} by a literal"))
    lowest = np.array([-(2**31), 5], np.int32)
    rows.append(case("FloorDiv", x=lowest, y=np.array([-1, -1], np.int32), label="overflow"))
    rows.append(case("TruncateDiv", x=lowest, y=np.array([-1, -1], np.int32), label="overflow"))
    for op in ("FloorDiv", "FloorMod", "Mod"):
        for dtype in (np.float32, np.float64):
            x, y = np.meshgrid(as_dtype(WIDE[:10], dtype), as_dtype(WIDE[:10], dtype))  # torch's fmod ends at 1e38
            rows.append(case(op, x=x, y=y, label=np.dtype(dtype).name))
    for op in ("Xdivy", "Xlogy", "Xlog1py", "Atan2"):
        rows.append(case(op, x=a, y=b, ulp=3, reason=EIGEN))
    rows.append(case("Pow", x=np.abs(a), y=b, ulp=3, reason=EIGEN))
    rows.append(
        case("Pow", x=np.abs(a).astype(np.float64), y=b.astype(np.float64), ulp=3, reason=EIGEN, label="float64")
    )
    rows += [
        case("Pow", "y", x=WIDE, y=np.float32(y), ulp=3, reason=EIGEN, label=str(y)) for y in (2, 3, 0.5, -0.5, -1)
    ]
    rows.append(case("Pow", x=np.array([2, -3, 0, 5], np.int32), y=np.array([10, 3, 0, 1], np.int32), label="int32"))
    rows.append(case("Pow", "y", x=np.array([2, -3, 0, 5], np.int64), y=np.int64(2), label="int64"))
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        x, y = np.meshgrid(INTEGERS, INTEGERS)
        rows.append(case(op, x=x, y=y))
    counts = np.array([0, 1, 31, 32, 64, -1, 2, 3, 4, 5], np.int64)
    for op in ("LeftShift", "RightShift"):
        x, y = np.meshgrid(INTEGERS, counts)
        rows += [case(op, x=x.astype(d), y=y.astype(d), label=np.dtype(d).name) for d in (np.int32, np.int64)]
    p, q = np.array([True, True, False, False]), np.array([True, False, True, False])
    rows += [case(op, x=p, y=q) for op in ("LogicalAnd", "LogicalOr")]
    rows += [case(op, x=p, y=q, label="bool") for op in ("Equal", "NotEqual")]
    words, others = [b"a", b"b", b""], [b"a", b"c", b"\xff"]
    rows += [case(op, x=words, y=others, label="strings") for op in ("Equal", "NotEqual", "Add")]
    rows += [case(op, "y", x=words, y=b"b", label="strings, constant") for op in ("Equal", "NotEqual", "Add")]
    rows.append(
        case("Equal", x=[[b"a"], [b"b"]], y=[[b"a", b"b"]], batched=False, free=False, label="strings broadcast")
    )
    rows.append(case("Equal", x=EDGES, y=EDGES, attrs={"incompatible_shape_error": False}))
    rows.append(case("NotEqual", x=EDGES, y=EDGES, attrs={"incompatible_shape_error": False}))
    rows.append(
        case(
            "Mul",
            x=np.ones((4, 1, 3), np.float32),
            y=np.ones((2, 1), np.float32),
            batched=False,
            free=False,
            label="broadcast",
        )
    )
    rows.append(case("Sub", x=np.zeros((0, 3), np.float32), y=np.zeros((0, 3), np.float32), label="empty"))
    rows.append(case("AddN", inputs=(EDGES, EDGES[::-1].copy(), EDGES)))
    return rows


def choice_cases() -> list[Case]:
    c = np.array([True, False, True])
    x, y = EDGES[:3], EDGES[3:6]
    m, n = RNG.normal(size=(3, 2)).astype(np.float32), RNG.normal(size=(3, 2)).astype(np.float32)
    return [
        case("SelectV2", condition=c, t=x, e=y),
        case("SelectV2", "e", condition=c, t=x, e=np.float32(7)),
        case("SelectV2", "t", "e", condition=c, t=np.int32(7), e=np.int32(8), label="int32 literals"),
        case("SelectV2", condition=c[:, None], t=m, e=n),
        case("SelectV2", condition=c, t=[b"a", b"b", b"c"], e=[b"x", b"y", b"z"], label="strings"),
        case("SelectV2", "e", condition=c, t=[b"a", b"b", b"c"], e=b"", label="strings, constant"),
        case("Select", condition=c, x=x, y=y),
        case("Select", condition=c, x=m, y=n, label="rows"),
        case("Select", condition=np.array(True), x=m, y=n, label="scalar"),
        case("Select", condition=np.array([[True, False]] * 3), x=m, y=n, label="equal shapes"),
        case("Select", condition=c, x=[[b"a"], [b"b"], [b"c"]], y=[[b"x"], [b"y"], [b"z"]], label="rows of strings"),
        case("ClipByValue", "clip_value_min", "clip_value_max", t=EDGES, clip_value_min=np.float32(-1), clip_value_max=np.float32(2)),
        case("ClipByValue", "clip_value_min", "clip_value_max", t=INTEGERS, clip_value_min=np.int64(-1), clip_value_max=np.int64(2)),
        case("L2Loss", t=m, ulp=2, reason=ORDER),
    ]  # fmt: skip


def cast_cases() -> list[Case]:
    values = np.concatenate([EDGES, np.array([300, -300, 3e9, -3e9, 1e19, -1e19, 254.9, -128.9], np.float32)])
    values = np.concatenate([values, values])  # beyond one vector, so that Eigen's vectorized path runs
    small = np.array([1.5, -1.5, -0.0, 126.5, 99.0, 0.99, -127.5] * 5, np.float32)
    narrow = ("int8", "int16", "int32", "int64", "uint8", "uint16", "bool", "float16", "bfloat16", "float32", "float64")
    rows = [
        case(
            "Cast",
            x=as_dtype(np.abs(small) if target[0] == "u" else small if target in ("int8", "int16") else values, source),
            attrs={"DstT": getattr(tf, target)},
            label=f"{np.dtype(source).name}->{target}",
        )
        for source in FLOAT_DTYPES
        for target in narrow
    ]
    rows += [
        case(
            "Cast",
            x=as_dtype(INTEGERS * 1000003, source),
            attrs={"DstT": getattr(tf, target)},
            label=f"{np.dtype(source).name}->{target}",
        )
        for source in (np.int32, np.int64, np.uint8)
        for target in narrow
    ]
    rows += [
        case("Cast", x=values, attrs={"DstT": getattr(tf, target)}, label=f"float32->{target}")
        for target in ("uint32", "uint64")
    ]
    rows += [
        case("Cast", x=np.array([True, False]), attrs={"DstT": target}, label=f"bool->{target.name}")
        for target in (tf.float32, tf.int32, tf.int64, tf.bool)
    ]
    rows += [
        case(
            "Cast",
            x=as_dtype(values, source),
            attrs={"DstT": target, "Truncate": True},
            label=f"truncate to {target.name}",
        )
        for source, target in ((np.float32, tf.bfloat16), (np.float64, tf.float32), (np.float32, tf.float64))
    ]
    rows.append(
        case("Cast", x=np.array([1 + 2j, -3j], np.complex64), attrs={"DstT": tf.float32}, label="complex->float32")
    )
    rows += [
        case("Bitcast", input=EDGES, attrs={"type": tf.int32}),
        case("Bitcast", input=EDGES.astype(np.float64), attrs={"type": tf.int32}, label="narrower"),
        case("Bitcast", input=np.arange(12, dtype=np.int32).reshape(6, 2), attrs={"type": tf.int64}, label="wider"),
    ]
    z = np.array([3 + 4j, -1 - 1j, 0, 2j], np.complex64)
    rows += [
        case("Complex", real=WIDE[5:], imag=SMALL[: WIDE[5:].size]),
        case("Real", input=z), case("Imag", input=z), case("Conj", input=z),
        case("ComplexAbs", x=z, ulp=1, reason="a root of a sum of squares"), case("Angle", input=z, ulp=2, reason=EIGEN),
        case("Neg", x=z[:2], label="complex"), case("Mul", x=z, y=z, label="complex"),
    ]  # fmt: skip
    return rows


def reduction_cases() -> list[Case]:
    data = RNG.normal(size=(4, 3, 5)).astype(np.float32)
    marked = data.copy()
    marked[0, 1, 2], marked[1, 0, 0], marked[2, 2, 2] = NAN, INF, -INF
    whole = RNG.integers(-50, 50, (4, 3, 5))
    rows: list[Case] = []
    for axis in (0, -1, [1], [0, 2], [0, 1, 2], []):
        for keep in (False, True):
            for op in ("Max", "Min"):
                rows.append(
                    case(
                        op,
                        "axis",
                        input=marked,
                        axis=np.array(axis, np.int32),
                        attrs={"keep_dims": keep},
                        label=f"{axis} {keep}",
                    )
                )
            for op in ("Sum", "Mean", "Prod", "EuclideanNorm"):
                rows.append(case(op, "axis", input=data, axis=np.array(axis, np.int32), attrs={"keep_dims": keep},
                                 ulp=8, absolute=2e-6, reason=ORDER, label=f"{axis} {keep}"))  # fmt: skip
            for op in ("All", "Any"):
                rows.append(
                    case(
                        op,
                        "axis",
                        input=data > 0,
                        axis=np.array(axis, np.int32),
                        attrs={"keep_dims": keep},
                        label=f"{axis} {keep}",
                    )
                )
    for dtype in (np.int32, np.int64):
        rows += [
            case(op, "axis", input=whole.astype(dtype), axis=[1, 2], label=np.dtype(dtype).name)
            for op in ("Sum", "Mean", "Prod", "Max", "Min")
        ]
    rows += [case(op, "axis", input=marked, axis=[1], label="not finite") for op in ("Sum", "Mean") for _ in "1"]
    for dtype in (np.float64, np.float16, BFLOAT16):
        for op in ("Sum", "Mean", "Max"):
            rows.append(case(op, "axis", input=data.astype(dtype), axis=[-1], ulp=4, absolute=1e-2 if np.dtype(dtype).itemsize == 2 else 0,
                             reason="sums in the narrow dtype", label=np.dtype(dtype).name))  # fmt: skip
    rows += [case(op, "axis", input=np.zeros((3, 0), np.float32), axis=[1], label="of nothing")
             for op in ("Sum", "Mean", "Prod", "Max", "Min", "EuclideanNorm")]  # fmt: skip
    rows += [
        case(op, "axis", input=np.zeros((3, 0), np.int32), axis=[1], label="of no integers")
        for op in ("Sum", "Prod", "Max", "Min")
    ]
    rows += [case(op, "axis", input=np.zeros((3, 0), np.bool_), axis=[1], label="of nothing") for op in ("All", "Any")]
    ties = np.array(
        [
            [1, 3, 3, 0],
            [-0.0, 0, -1, 0],
            [NAN, 1, 2, 2],
            [2, NAN, 1, 5],
            [NAN] * 4,
            [-INF] * 4,
            [INF] * 4,
            [NAN, -INF, -INF, NAN],
        ],
        np.float32,
    )
    for op in ("ArgMax", "ArgMin"):
        rows += [case(op, "dimension", input=ties, dimension=axis, attrs={"output_type": kind}, label=f"{axis} {kind.name}")
                 for axis, kind in ((1, tf.int64), (-1, tf.int32), (0, tf.int64))]  # fmt: skip
        rows.append(case(op, "dimension", input=whole % 3, dimension=-1, label="int64"))
        rows.append(case(op, "dimension", input=ties > 1, dimension=-1, label="bool"))
        rows.append(case(op, "dimension", input=np.tile(ties, (1, 40)), dimension=1, label="long rows"))
    for op in ("Cumsum", "Cumprod"):
        for exclusive in (False, True):
            for reverse in (False, True):
                attrs = {"exclusive": exclusive, "reverse": reverse}
                rows.append(case(op, "axis", x=whole % 5, axis=1, attrs=attrs))
                rows.append(
                    case(
                        op,
                        "axis",
                        x=data,
                        axis=-1,
                        attrs=attrs,
                        ulp=8,
                        absolute=1e-6,
                        reason="torch accumulates in float64",
                    )
                )
        rows.append(case(op, "axis", x=np.zeros((3, 0), np.float32), axis=1, attrs={"exclusive": True}, label="empty"))
    return rows


def bucket_cases() -> list[Case]:
    edges = [-1.0, 0.0, 0.1, 2.5]
    stamps = np.array([879999999, 880000000, 880000031, 880000032, 880000033, 880000064], np.int64)
    rows = [
        case(
            "Bucketize",
            input=np.array([NAN, -INF, INF, -1, -0.0, 0.0, 0.1, 2.5, 2.6], d),
            attrs={"boundaries": edges},
            label=np.dtype(d).name,
        )
        for d in (np.float32, np.float64)
    ]
    rows += [case("Bucketize", input=stamps.astype(d), attrs={"boundaries": [880000000.0, 880000050.0]}, label=np.dtype(d).name)
             for d in (np.int64, np.int32)]  # fmt: skip
    rows.append(case("Bucketize", input=np.zeros((0, 2), np.float32), attrs={"boundaries": edges}, label="empty"))
    denormal = np.array([-1e-45, 1e-45, -1.2e-38, 1.2e-38, 0.0, -0.0])
    rows += [case("Bucketize", input=denormal.astype(d), attrs={"boundaries": [0.0]}, label=f"denormal {np.dtype(d).name}")
             for d in (np.float32, np.float64)]  # fmt: skip
    rows.append(case("Bucketize", input=np.array([[1.0]]), attrs={"boundaries": []}, label="no boundaries"))
    table = np.sort(RNG.integers(0, 9, (3, 6)), axis=1).astype(np.float32)
    asked = RNG.integers(-1, 10, (3, 4)).astype(np.float32)
    rows += [
        case(op, sorted_inputs=table, values=asked, attrs={"out_type": kind})
        for op in ("UpperBound", "LowerBound")
        for kind in (tf.int32, tf.int64)
    ]
    scores = np.array([[1, 1, 1, 0.5, 3], [-0.0, 0.0, -1, 2, 2], [INF, -INF, INF, 0, 0]], np.float32)
    long = RNG.choice(np.array([-INF, -2.5, -0.0, 0.0, 1e-40, 1.0, 3.0, INF], np.float32), (3, 700))
    for k in (0, 1, 3, 5):
        rows.append(case("TopKV2", "k", input=scores, k=k, label=str(k)))
    rows += [
        case("TopKV2", "k", input=scores, k=1, attrs={"sorted": False}),
        case("TopKV2", "k", input=scores, k=3, attrs={"index_type": tf.int64}),
        case("TopKV2", "k", input=RNG.integers(0, 5, (4, 40)), k=20, label="integers"),
        case("TopKV2", "k", input=RNG.integers(0, 5, (4, 40)).astype(np.float64), k=20, label="float64"),
        case("TopKV2", "k", input=long, k=40, label="long rows with ties"),
        case("TopKV2", "k", input=scores[0], k=2, batched=False, free=False, label="one row"),
    ]
    return rows


def converted(op: str, attrs: dict[str, Any], **arrays: np.ndarray) -> list[Any]:
    """What the converter of an op makes of `arrays`: for ops that TensorFlow reads from old graphs but no longer writes."""
    specs = tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in arrays.items())
    graph = Graph(specs, (Node("node", op, tuple(arrays), attrs),), {"out": "node:0", "second": "node:1"})
    context = Context(SimpleNamespace(functions={}, variables={}, tables={}))  # type: ignore[arg-type]
    return list(run(Program(convert(graph, context)[0], context.store), arrays).values())


COVERED = {"TopK"}
CASES = [*unary_cases(), *binary_cases(), *choice_cases(), *cast_cases(), *reduction_cases(), *bucket_cases()]


@pytest.mark.parametrize("row", CASES, ids=str)
def test_equals_tensorflow(row: Case) -> None:
    check_case(row)


@pytest.mark.parametrize("op", ["FloorDiv", "Div", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"])
def test_an_integer_division_by_zero_is_refused_as_tensorflow_refuses_it(op: str) -> None:
    program = check_function(
        lambda x, y: getattr(tf.raw_ops, op)(x=x, y=y), [{"x": np.array([4, 5]), "y": np.array([2, 3])}]
    )
    with pytest.raises(InputError, match="Integer division by zero"):
        run(program, {"x": np.array([4, 5]), "y": np.array([2, 0])})


def test_a_negative_integer_exponent_is_refused_as_tensorflow_refuses_it() -> None:
    program = check_function(lambda x, y: tf.raw_ops.Pow(x=x, y=y), [{"x": np.array([4, 5]), "y": np.array([2, 3])}])
    with pytest.raises(InputError, match="negative integer powers"):
        run(program, {"x": np.array([4, 5]), "y": np.array([2, -1])})


def test_top_k_refuses_more_than_there_are() -> None:
    with pytest.raises(InputError, match="at least k columns"):
        top_k(torch.zeros(1, 2), 3)


@pytest.mark.parametrize("order", [True, False])
def test_the_first_top_k(order: bool) -> None:
    scores = np.array([[1, 1, 1, 0.5, 3], [-0.0, 0.0, -1, 2, 2]], np.float32)
    values, indices = converted("TopK", {"k": 3, "sorted": order, "T": "float32"}, input=scores)
    assert_equal(values, tf.math.top_k(scores, 3).values.numpy())
    assert_equal(indices, tf.math.top_k(scores, 3).indices.numpy())


def test_round_of_integers_is_refused() -> None:
    with pytest.raises(PortingError, match="returns zeros"):
        check_function(lambda x: tf.raw_ops.Round(x=x), [{"x": np.array([3, 4])}])


def test_select_of_unknown_rank_is_refused() -> None:
    def build(c: Any, x: Any, shape: Any) -> Any:
        wide = tf.reshape(x, shape)
        return tf.raw_ops.Select(condition=c, x=wide, y=wide)

    feed = {"c": np.array([True]), "x": np.zeros((1, 2), np.float32), "shape": np.array([1, 2])}
    with pytest.raises(PortingError, match="rank of its operands is unknown"):
        check_function(build, [feed])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.sampled_from(["int32", "int64"]))
def test_floats_become_tensorflows_integers(values: list[float], dtype: str) -> None:
    array = np.array(values, np.float32)
    expected = tf.cast(array, dtype).numpy()
    assert np.array_equal(to_integer(torch.from_numpy(array), dtype=dtype).numpy(), expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-INF, -1.0, -0.0, 0.0, 0.5, 0.5, 1.0, INF]), min_size=1, max_size=30), st.data())
def test_top_k_breaks_ties_as_tensorflow_does(values: list[float], data: Any) -> None:
    k = data.draw(st.integers(0, len(values)))
    array = np.array(values, np.float32)
    theirs = tf.math.top_k(array, k)
    ours = top_k(torch.from_numpy(array), k)
    assert np.array_equal(ours[0].numpy(), theirs.values.numpy())
    assert np.array_equal(ours[1].numpy(), theirs.indices.numpy())
