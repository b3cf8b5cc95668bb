"""Formulas with constants: the port matches TensorFlow's graph optimizer, bit for bit where both only add and multiply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.conversion.convert import Context, convert
from porting.flat_graph.flatten import flatten
from porting.saved_model import read
from porting.served import AS_WRITTEN, Served
from porting.tower import port_tower
from tests.witness import as_array, assert_equal, check_function, run, saved_model_of, tf, to_numpy, trace
from torch_towers.program.program import Program

PRICES = (np.arange(200) / 10).astype(np.float32)
SPREAD = np.random.default_rng(0).uniform(0.1, 9, 400).astype(np.float32)
VALUES = np.concatenate([PRICES, SPREAD])

EXACT: dict[str, Callable[[Any], Any]] = {
    "x / c": lambda x: x / 0.1,
    "x / c, cast": lambda x: tf.cast(x / 0.1, tf.int64),
    "x / c of a constant made of others": lambda x: x / (tf.cast(tf.constant(3), x.dtype) * 0.7),
    "x / identity(c)": lambda x: x / tf.identity(tf.constant(0.3, x.dtype)),
    "div": lambda x: tf.raw_ops.Div(x=x, y=tf.constant(0.3, x.dtype)),
    "xdivy": lambda x: tf.math.xdivy(x, 0.1),
    "floor division": lambda x: x // 0.1,
    "divide_no_nan": lambda x: tf.math.divide_no_nan(x, 0.1),
    "c / x": lambda x: 0.3 / x,
    "(x / c1) / c2": lambda x: (x / 0.1) / 0.3,
    "(x / c1) * c2": lambda x: (x / 0.1) * 0.3,
    "(x * c1) / c2": lambda x: (x * 0.1) / 0.3,
    "((x * c1) * c2) * c3": lambda x: ((x * 0.1) * 0.3) * 0.7,
    "c2 / (x * c1)": lambda x: 0.3 / (x * 0.1),
    "(x + c1) + c2": lambda x: (x + 0.1) + 0.3,
    "(x + c1) - c2": lambda x: (x + 0.1) - 0.3,
    "(x - c1) + c2": lambda x: (x - 0.1) + 0.3,
    "(x - c1) - c2": lambda x: (x - 0.1) - 0.3,
    "(c1 - x) + c2": lambda x: (0.1 - x) + 0.3,
    "(c1 - x) - c2": lambda x: (0.1 - x) - 0.3,
    "c2 - (x + c1)": lambda x: 0.3 - (x + 0.1),
    "c2 - (x - c1)": lambda x: 0.3 - (x - 0.1),
    "c2 - (c1 - x)": lambda x: 0.3 - (0.1 - x),
    "c2 + (c1 + x)": lambda x: 0.3 + (0.1 + x),
    "a sum that two read": lambda x: [(s := x + 0.1) + 0.3, s * 0.3],
    "a sum that is an output": lambda x: [(s := x + 0.1) + 0.3, s],
    "c - (a + b)": lambda x: 0.3 - (tf.square(x) + tf.abs(x) * x),
    "c - (a - b)": lambda x: 0.3 - (tf.square(x) - tf.abs(x) * x),
    "(a - b) - c": lambda x: (tf.square(x) - tf.abs(x) * x) - 0.3,
    "(a - b) + c": lambda x: (tf.square(x) - tf.abs(x) * x) + 0.3,
    "(a + b) - c": lambda x: (tf.square(x) + tf.abs(x) * x) - 0.3,
    "(a + b) + c": lambda x: (tf.square(x) + tf.abs(x) * x) + 0.3,
    "x / 255 - 0.5": lambda x: (x / 255.0 - 0.5) / 0.5,
    "1 / (1 / x)": lambda x: 1.0 / (1.0 / x),
    "x ** 2": lambda x: x**2.0,
    "x ** 3": lambda x: x**3.0,
    "in a branch": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x / 0.1, lambda: x / 0.3),
    "in a loop": lambda x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v / 0.3), [0, x])[1],
    "in a map": lambda x: tf.map_fn(lambda v: v / 0.3, x),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", EXACT)
def test_to_the_bit(formula: str, dtype: Any) -> None:
    def function(x: Any) -> Any:
        return EXACT[formula](x)

    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": VALUES.astype(dtype)}])


@pytest.mark.parametrize(
    "formula", ["x / c", "x / c, cast", "(x / c1) / c2", "(x + c1) + c2", "c2 - (x - c1)", "c - (a + b)", "x ** 3"]
)
def test_as_written_is_something_else(formula: str) -> None:
    """The same formula with the imitation off: TensorFlow's numbers are not those of the graph as it is written."""
    program, concrete = ported(EXACT[formula], AS_WRITTEN, {"x": VALUES})
    theirs = to_numpy(concrete(x=tf.constant(VALUES)))
    ours = next(iter(run(program, {"x": VALUES}).values())).numpy()
    assert not np.array_equal(ours, theirs)


def ported(function: Callable[..., Any], how: Served, arrays: dict[str, np.ndarray]) -> tuple[Program, Any]:
    concrete = trace(tf.autograph.experimental.do_not_convert(lambda **tensors: function(**tensors)), arrays)
    context = Context(saved_model_of(concrete, list(arrays)), how)
    graph, _ = convert(flatten(context.model.graph("traced"), context.model.functions), context)
    return Program(graph, context.store), concrete


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_short_floats(dtype: Any) -> None:
    """Divided so too; regrouped where all is a sum or a product, but not where one is a difference."""

    def function(x: Any) -> Any:
        v = tf.cast(x, dtype)
        return [
            tf.cast(y, tf.float32)
            for y in (v / 0.3, (v + 0.1) + 0.3, (v * 0.1) * 0.3, (v / 0.3) * 0.1, (v - 0.1) - 0.3)
        ]

    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": SPREAD}])


def test_integers_are_regrouped_only_where_all_is_a_sum_or_a_product() -> None:
    def function(x: Any) -> Any:
        return [(x + 3) + 4, (x * 3) * 4, 7 - (x + 3), x**2, x**3, tf.cast(x, tf.float64) / 3.0, x // 3]

    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": np.arange(-20, 20, dtype=np.int32)}])


NEAR: dict[str, Callable[[Any], Any]] = {
    "log(x + 1)": lambda x: tf.math.log(x + 1.0),
    "log(1 + x), a sum that is read twice": lambda x: [tf.math.log(s := 1.0 + x), s * 2.0],
    "log((x + 1.5) - 0.5)": lambda x: tf.math.log((x + 1.5) - 0.5),
    "exp(x) - 1": lambda x: [tf.exp(x) - 1.0, tf.exp(x) * 2.0],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", NEAR)
def test_near_0(formula: str, dtype: Any) -> None:
    """Where `log(x + 1)` would be 0 and `exp(x) - 1` a few ulp of 1: 4 ulp are what two implementations of log1p and expm1 part."""
    tiny = np.array([1e-30, -1e-30, 1e-20, 3e-9, -3e-9, 1e-5, 0.0, 0.5], dtype)

    def function(x: Any) -> Any:
        return NEAR[formula](x)

    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": tiny}], ulp=4)


def test_division_by_a_root_and_logarithms_of_shares() -> None:
    """4 ulp: TensorFlow's rsqrt and exponential are Eigen's, from an estimate that is refined once."""

    def function(x: Any) -> Any:
        shares = tf.nn.softmax(tf.stack([x * 100.0, -x * 100.0], 1))
        return [x / tf.sqrt(x), tf.math.log(shares), x**0.5, x**-0.5]

    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": SPREAD}], ulp=4)


def test_the_signs_of_zero_and_the_edges_of_powers() -> None:
    def function(x: Any) -> Any:
        return [x + 0.0, 0.0 + x, x - 0.0, 0.0 - x, x * 1.0, x / 1.0, x**0.5, x**1.0, x**2.0]

    edges = np.array([-0.0, 0.0, -np.inf, np.inf, np.nan, 4.0], np.float32)
    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": edges}])


@settings(max_examples=25, deadline=None)
@given(divisor=st.floats(0.0625, 100, width=32), added=st.floats(-100, 100, width=32))
def test_any_constants(divisor: float, added: float) -> None:
    def function(x: Any) -> Any:
        scaled = x / divisor
        return [tf.cast(scaled, tf.int64), tf.floor((x + added) - divisor), tf.round((x / divisor) * 0.7)]

    check_function(tf.autograph.experimental.do_not_convert(function), [{"x": PRICES}])


def test_resize_with_pad() -> None:
    """The size is the floor of a quotient: 23 rows, where exact division gives 24."""

    def function(x: Any) -> Any:
        return tf.image.resize_with_pad(x, 24, 24)

    images = np.random.default_rng(0).uniform(0, 255, (1, 40, 30, 3)).astype(np.float32)
    concrete = tf.function(function).get_concrete_function(x=tf.TensorSpec([1, None, None, 3], tf.float32, "x"))
    context = Context(saved_model_of(concrete, ["x"]), Served())
    graph, _ = convert(flatten(context.model.graph("traced"), context.model.functions), context)
    found = next(iter(run(Program(graph, context.store), {"x": images}).values()))
    expected = to_numpy(concrete(x=tf.constant(images)))
    filled = (expected != 0).any((0, 2, 3)).sum()
    assert int((found != 0).any(-1).any(-1).any(0).sum()) == filled
    assert_equal(found, expected, absolute=1e-3)


def test_what_a_signature_captures_is_no_constant(tmp_path: Path) -> None:
    """A loaded signature is given its captures at each call: TensorFlow's optimizer does not know them, and divides."""
    module = tf.Module()
    module.scale = tf.constant(0.1)
    module.serve = tf.function(
        lambda x: {"captured": x / module.scale, "written": x / 0.1},
        input_signature=[tf.TensorSpec([None], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    loaded = tf.saved_model.load(str(tmp_path))
    theirs = loaded.signatures["serving_default"](x=tf.constant(PRICES))
    ours = port_tower(read(tmp_path)).tower()({"x": PRICES})
    for name in ("captured", "written"):
        assert_equal(ours[name], to_numpy(theirs[name]), what=name)
    assert not np.array_equal(as_array(ours["captured"].numpy()), as_array(ours["written"].numpy()))
