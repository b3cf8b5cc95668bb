"""Activations, normalizations, products of matrices and random numbers against TensorFlow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from porting.conversion.convert import Context, convert
from porting.converters.random import REFUSED
from porting.errors import PortingError
from tests.witness import Case, assert_equal, case, check_case, check_function, run, tf
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.program.program import Program

RNG = np.random.default_rng(0)
EIGEN = "Eigen's vectorized approximation and torch's (SLEEF) are both within a few ulp of the true value"
ORDER = "the same sum in another order"
BFLOAT16 = tf.bfloat16.as_numpy_dtype
EDGES = np.array(
    [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, 0.5, -2.5, 6.0, 7.0, -14.0, 14.0, 30.0, -30.0, -100.0], np.float32
)
WIDE = np.concatenate([EDGES, RNG.normal(size=48).astype(np.float32) * 6])
FINITE = WIDE[np.isfinite(WIDE)]


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32).astype(dtype)


def activation_cases() -> list[Case]:
    rows: list[Case] = []
    for op in ("Relu", "Relu6"):
        rows += [case(op, features=WIDE.astype(d), absolute=1e-30, reason="the sign of a zero, on which Eigen's own paths differ",
                      label=np.dtype(d).name) for d in (np.float32, np.float64, np.float16)]  # fmt: skip
    rows.append(case("Relu", features=np.array([-3, 0, 5], np.int32), label="int32"))
    rows += [case("LeakyRelu", features=WIDE, attrs={"alpha": alpha}) for alpha in (0.2, 0.0, 1.5)]
    for op, ulp, absolute in (("Elu", 4, 1e-7), ("Selu", 4, 2e-7), ("Softplus", 4, 1e-37), ("Softsign", 1, 0)):
        for dtype in (np.float32, np.float64):
            rows.append(
                case(
                    op,
                    features=WIDE.astype(dtype),
                    ulp=ulp,
                    absolute=absolute,
                    reason=EIGEN,
                    label=np.dtype(dtype).name,
                )
            )
    logits = np.concatenate(
        [normal(3, 7) * 5, [[0] * 7, [-1e9] * 7, [80] + [-80] * 6, [-np.inf] + [1] * 6, [np.nan] * 7]]
    ).astype(np.float32)
    for dtype in (np.float32, np.float64):
        label = np.dtype(dtype).name
        rows.append(case("Softmax", logits=logits.astype(dtype), ulp=6, absolute=1e-37, reason=EIGEN, label=label))
        rows.append(case("LogSoftmax", logits=logits.astype(dtype), ulp=6, absolute=1e-6, reason=EIGEN, label=label))
    rows.append(case("Softmax", logits=np.zeros((0, 4), np.float32), label="empty"))
    return rows


def normalization_cases() -> list[Case]:
    rows: list[Case] = []
    image = normal(2, 3, 4, 5)
    rows += [
        case("BiasAdd", "bias", value=image, bias=normal(5), attrs={"data_format": "NHWC"}),
        case("BiasAdd", "bias", value=image, bias=normal(3), attrs={"data_format": "NCHW"}),
        case("BiasAdd", "bias", value=normal(2, 5), bias=normal(5)),
        case("BiasAddV1", "bias", value=normal(2, 5), bias=normal(5)),
        case(
            "LRN", input=image, attrs={"depth_radius": 2, "bias": 1.0, "alpha": 0.1, "beta": 0.75}, ulp=8, reason=EIGEN
        ),
        case("LRN", input=image, ulp=8, reason=EIGEN, label="defaults"),
    ]
    return rows


def product_cases() -> list[Case]:
    rows: list[Case] = []
    for ta in (False, True):
        for tb in (False, True):
            a, b = normal(3, 4).T.copy() if ta else normal(3, 4), normal(4, 5).T.copy() if tb else normal(4, 5)
            rows.append(
                case(
                    "MatMul",
                    a=a,
                    b=b,
                    attrs={"transpose_a": ta, "transpose_b": tb},
                    absolute=2e-6,
                    reason=ORDER,
                    free=False,
                )
            )
            x, y = (normal(2, 4, 3) if ta else normal(2, 3, 4)), (normal(2, 5, 4) if tb else normal(2, 4, 5))
            for op in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
                attrs = {"adj_x": ta, "adj_y": tb} | ({"Tout": tf.float32} if op.endswith("V3") else {})
                rows.append(case(op, x=x, y=y, attrs=attrs, absolute=2e-6, reason=ORDER))
    rows += [
        case("MatMul", "b", a=normal(3, 4), b=normal(4, 5), absolute=2e-6, reason=ORDER, label="constant"),
        case("MatMul", "b", a=RNG.integers(-9, 9, (3, 4)).astype(np.int32), b=RNG.integers(-9, 9, (4, 5)).astype(np.int32), label="int32"),
        case("MatMul", "b", a=normal(3, 4).astype(np.float64), b=normal(4, 5).astype(np.float64), absolute=1e-14, reason=ORDER, label="float64"),
        case("MatMul", "b", a=normal(3, 4, dtype=np.float16), b=normal(4, 5, dtype=np.float16), absolute=1e-2, reason=ORDER, label="float16"),
        case("MatMul", "b", a=normal(3, 4, dtype=BFLOAT16), b=normal(4, 5, dtype=BFLOAT16), absolute=6e-2, reason=ORDER, label="bfloat16"),
        case("MatMul", "b", a=np.zeros((0, 4), np.float32), b=normal(4, 5), label="empty"),
        case("BatchMatMulV2", "y", x=normal(2, 3, 4), y=normal(4, 5), absolute=2e-6, reason=ORDER, label="broadcast"),
        case("BatchMatMulV2", x=(normal(2, 3, 4) + 1j * normal(2, 3, 4)).astype(np.complex64), y=(normal(2, 3, 4) + 1j).astype(np.complex64),
             attrs={"adj_y": True}, absolute=4e-6, reason=ORDER, label="complex"),
        case("Cross", a=normal(2, 3), b=normal(2, 3), ulp=1, absolute=3e-7, reason="one fused multiply-add"),
    ]  # fmt: skip
    for equation, shapes in (("abc,cde->abde", ((2, 3, 4), (4, 5, 6))), ("ab->ba", ((2, 3),)), ("...a,ab->...b", ((2, 3, 4), (4, 5))),
                             ("aecd,abcd->acbe", ((2, 3, 4, 5), (2, 6, 4, 5))), ("ab,ab->a", ((2, 3), (2, 3)))):  # fmt: skip
        free = equation.count(",") == 0 or equation in ("ab,ab->a", "aecd,abcd->acbe")
        rows.append(
            case(
                "Einsum",
                inputs=tuple(normal(*s) for s in shapes),
                attrs={"equation": equation},
                absolute=4e-6,
                reason=ORDER,
                free=free,
            )
        )
    square, wide = normal(2, 4, 4), normal(2, 3, 5)
    rows += [
        case("MatrixBandPart", "num_lower", "num_upper", input=wide, num_lower=a, num_upper=b)
        for a, b in ((-1, 0), (0, -1), (1, 2), (0, 0))
    ]
    rows += [
        case("MatrixBandPart", "num_lower", "num_upper", input=wide > 0, num_lower=-1, num_upper=0, label="bool"),
        case("MatrixDiag", diagonal=normal(2, 3)), case("MatrixDiagPart", input=wide), case("MatrixSetDiag", input=square, diagonal=normal(2, 4)),
        case("Diag", diagonal=normal(3), batched=False), case("DiagPart", input=normal(3, 3), free=False),
    ]  # fmt: skip
    for version in ("V2", "V3"):
        align = {"attrs": {"align": "RIGHT_LEFT"}} if version == "V3" else {}
        for k in (0, 1, -1):
            width = 3 if k else 4
            rows.append(case(f"MatrixDiag{version}", "k", "num_rows", "num_cols", "padding_value", diagonal=normal(2, 3), k=k, num_rows=-1,
                             num_cols=-1, padding_value=np.float32(0), label=str(k), **align))  # fmt: skip
            rows.append(
                case(
                    f"MatrixDiagPart{version}",
                    "k",
                    "padding_value",
                    input=square,
                    k=[k],
                    padding_value=np.float32(0),
                    label=str(k),
                    **align,
                )
            )
            rows.append(
                case(
                    f"MatrixSetDiag{version}", "k", input=square, diagonal=normal(2, width), k=k, label=str(k), **align
                )
            )
    return rows


BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
COVERED = {"RandomUniform", "BatchNormWithGlobalNormalization", *BATCH_NORMS, *REFUSED}
CASES = [*activation_cases(), *normalization_cases(), *product_cases()]


@pytest.mark.parametrize("row", CASES, ids=str)
def test_equals_tensorflow(row: Case) -> None:
    check_case(row)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("op", BATCH_NORMS)
def test_a_fused_batch_norm(op: str, layout: str) -> None:
    """The first three results: TensorFlow leaves the others, which only its gradients read, uninitialized."""
    n = 5 if layout == "NHWC" else 3
    weights = {"scale": normal(n), "offset": normal(n), "mean": normal(n), "variance": np.abs(normal(n))}

    def build(x: Any) -> Any:
        return getattr(tf.raw_ops, op)(x=x, **weights, is_training=False, epsilon=1e-3, data_format=layout)[:3]

    check_function(build, [{"x": normal(2, 3, 4, 5)}, {"x": normal(1, 3, 4, 5)}], ulp=4, absolute=4e-6)
    if op != "FusedBatchNorm":
        check_function(lambda x: build(x)[0], [{"x": normal(2, 3, 4, 5, dtype=np.float16)}], ulp=1, absolute=1e-3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_fused_batch_norm_takes_the_statistics_of_the_batch(layout: str) -> None:
    """As the LayerNormalization of Keras 2 does, which is a FusedBatchNormV3 in training."""

    def build(x: Any) -> Any:
        n = x.shape[-1] if layout == "NHWC" else x.shape[1]
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=tf.ones(n), offset=tf.zeros(n), mean=tf.constant([], tf.float32), variance=tf.constant([], tf.float32),
            epsilon=1e-3, is_training=True, data_format=layout,
        )  # fmt: skip
        return y, mean, variance

    check_function(build, [{"x": normal(2, 3, 4, 5)}, {"x": normal(7, 3, 4, 5) * 9 + 3}], ulp=16, absolute=2e-6)


def test_running_statistics_are_refused() -> None:
    def build(x: Any) -> Any:
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=[1.0], offset=[0.0], mean=[0.0], variance=[1.0], exponential_avg_factor=0.5
        ).y

    with pytest.raises(PortingError, match="running statistics"):
        check_function(build, [{"x": normal(2, 3, 4, 1)}])


@pytest.mark.parametrize("scaled", [True, False])
def test_batch_norm_with_global_normalization(scaled: bool) -> None:
    """TensorFlow reads this op from old graphs but no longer writes it: its definition is the witness."""
    x, mean, variance, beta, gamma = normal(2, 3, 4, 5), normal(5), np.abs(normal(5)), normal(5), normal(5)
    arrays = {"t": x, "m": mean, "v": variance, "beta": beta, "gamma": gamma}
    specs = tuple(TensorSpec(name, "float32", array.shape) for name, array in arrays.items())
    attrs = {"variance_epsilon": 1e-3, "scale_after_normalization": scaled, "T": "float32"}
    graph = Graph(specs, (Node("node", "BatchNormWithGlobalNormalization", tuple(arrays), attrs),), {"y": "node"})
    context = Context(SimpleNamespace(functions={}, variables={}, tables={}))  # type: ignore[arg-type]
    (found,) = run(Program(convert(graph, context)[0], context.store), arrays).values()
    expected = tf.nn.batch_normalization(x, mean, variance, beta, gamma if scaled else None, 1e-3).numpy()
    assert_equal(found, expected, ulp=4, absolute=4e-6)


def test_l2_normalize() -> None:
    x = np.concatenate([normal(5, 8), [[1e-7] + [0] * 7, [0] * 8, [1e20] * 8]]).astype(np.float32)
    check_function(lambda x: tf.math.l2_normalize(x, axis=-1), [{"x": x}], ulp=4)


def test_dropout_switched_off_keeps_everything() -> None:
    def build(x: Any) -> Any:
        keep = tf.constant(1.0)
        drawn = tf.raw_ops.RandomUniform(shape=tf.shape(x), dtype=tf.float32)
        return x / keep * tf.floor(keep + (drawn * (1.0 - 0.0) + 0.0))

    check_function(build, [{"x": normal(4, 3)}, {"x": normal(1, 3)}])


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_dropout_switched_on_is_refused(keep: float) -> None:
    def build(x: Any) -> Any:
        return x / keep * tf.floor(keep + tf.raw_ops.RandomUniform(shape=tf.shape(x), dtype=tf.float32))

    with pytest.raises(PortingError, match="draws random numbers"):
        check_function(build, [{"x": normal(4, 3)}])


@pytest.mark.parametrize("use", [lambda x, r: x + r, lambda x, r: tf.exp(r), lambda x, r: r * -1.0, lambda x, r: r])
def test_random_numbers_in_the_result_are_refused(use: Any) -> None:
    with pytest.raises(PortingError, match="draws random numbers"):
        check_function(lambda x: use(x, tf.random.uniform(tf.shape(x))), [{"x": normal(4, 3)}])


@pytest.mark.parametrize("op", REFUSED)
def test_random_ops_are_refused(op: str) -> None:
    graph = Graph((), (Node("draw", op, (), {}),), {"y": "draw"})
    with pytest.raises(PortingError, match="draws random numbers"):
        convert(graph, Context(SimpleNamespace(functions={}, variables={}, tables={})))  # type: ignore[arg-type]
