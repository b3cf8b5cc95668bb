"""Branches and loops against TensorFlow, in the functional form of TF2 and in the Switch/Merge form of TF1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from tests.witness import assert_equal, check_function, port, run, tf, trace
from torch_towers.errors import InputError
from torch_towers.program.program import Program, walk

COVERED = {"If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile", "BranchIndex"}
X = np.array([[1.5, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)
N = np.array(5, np.int32)


def ops(program: Program) -> list[str]:
    return [node.op for node in walk(program.graph)]


def yes_and_no(x: np.ndarray = X) -> list[dict[str, Any]]:
    return [{"p": np.array(True), "x": x}, {"p": np.array(False), "x": x}]


def test_branch_on_a_value() -> None:
    program = check_function(
        lambda p, x: tf.cond(p, lambda: x + 1.0, lambda: tf.reshape(x * 2.0, tf.shape(x))), yes_and_no()
    )
    assert "cond" in ops(program)


def test_branches_share_what_is_known_outside() -> None:
    """A constant axis, sizes and the rank of the operand survive in the branch."""
    axis = tf.constant(1)

    def build(p: Any, x: Any) -> Any:
        return tf.cond(p, lambda: tf.concat([x, x], axis), lambda: tf.reshape(tf.tile(x, [1, 2]), [tf.shape(x)[0], 6]))

    check_function(build, yes_and_no())


def test_nested_branches_and_several_results() -> None:
    def build(p: Any, x: Any) -> Any:
        inner = lambda: tf.cond(tf.reduce_sum(x) > 100.0, lambda: (x, x[0, 0]), lambda: (-x, x[1, 1]))  # noqa: E731
        return tf.cond(p, inner, lambda: (x * 3.0, tf.constant(7.0)))

    check_function(build, [*yes_and_no(), *yes_and_no(X * 100)])


def test_branch_whose_predicate_is_known_is_no_branch() -> None:
    known = tf.constant(True)

    def build(x: Any) -> Any:
        return tf.raw_ops.If(cond=known, input=[x], Tout=[tf.float32], then_branch=_function(lambda x: x + 1.0, x),
                             else_branch=_function(lambda x: x - 1.0, x))  # fmt: skip

    assert "cond" not in ops(check_function(build, [{"x": X}]))


@pytest.mark.parametrize("predicate", [np.array(0, np.int32), np.array(3, np.int32), np.array(0.0, np.float32), np.zeros(0, np.float32),
                                       np.zeros(1, np.float32), np.array(b"", object), np.array(b"x", object)], ids=repr)  # fmt: skip
def test_what_counts_as_true(predicate: np.ndarray) -> None:
    def build(p: Any, x: Any) -> Any:
        return tf.raw_ops.StatelessIf(cond=p, input=[x], Tout=[tf.float32], then_branch=_function(lambda x: x + 1.0, x),
                                      else_branch=_function(lambda x: x - 1.0, x))  # fmt: skip

    check_function(build, [{"p": predicate, "x": X}])


def _function(function: Callable[..., Any], like: Any) -> Any:
    return tf.function(function).get_concrete_function(tf.TensorSpec(like.shape, like.dtype))


@pytest.mark.parametrize("stateless", [False, True])
def test_case(stateless: bool) -> None:
    def build(i: Any, x: Any) -> Any:
        branches = [_function(f, x) for f in (lambda x: x + 1.0, lambda x: x * 2.0, lambda x: -x)]
        op = tf.raw_ops.StatelessCase if stateless else tf.raw_ops.Case
        return op(branch_index=i, input=[x], Tout=[tf.float32], branches=branches)

    check_function(build, [{"i": np.array(i, np.int32), "x": X} for i in (0, 1, 2, 7, -1)])


# -- assertions ---------------------------------------------------------------------------------------------------------


def test_guarded_assertion_is_a_check() -> None:
    """tf.debugging writes `if not p: Assert(p, message)`."""

    def build(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0.0), ["must be positive", x])]):
            return tf.identity(x)

    program = port(trace(build, {"x": X}), ["x"])
    assert ops(program).count("check") == 1
    run(program, {"x": np.abs(X)})
    with pytest.raises(InputError, match="must be positive"):
        run(program, {"x": X})


def test_assertion_in_a_branch_stays_in_the_branch() -> None:
    def checked(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0.0), ["must be positive"])]):
            return tf.identity(x)

    program = port(trace(lambda p, x: tf.cond(p, lambda: checked(x), lambda: -x), yes_and_no()[0]), ["p", "x"])
    assert np.array_equal(next(iter(run(program, yes_and_no()[1]).values())).numpy(), -X)
    with pytest.raises(InputError, match="must be positive"):
        run(program, yes_and_no()[0])


def test_assertion_in_a_branch_whose_result_is_not_used() -> None:
    def build(p: Any, x: Any) -> Any:
        def checked() -> Any:
            tf.debugging.Assert(tf.reduce_all(x > 0.0), ["must be positive"])
            return tf.constant(0)

        tf.cond(p, checked, lambda: tf.constant(1))
        return x * 2.0

    program = port(trace(build, yes_and_no()[0]), ["p", "x"])
    run(program, yes_and_no()[1])
    with pytest.raises(InputError, match="must be positive"):
        run(program, yes_and_no()[0])


# -- loops --------------------------------------------------------------------------------------------------------------


def test_loop_with_invariants() -> None:
    def build(n: Any, x: Any) -> Any:
        return tf.while_loop(lambda i, y: i < n, lambda i, y: (i + 1, tf.concat([y, x], 1)), [0, x],
                             shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, None])])  # fmt: skip

    check_function(build, [{"n": np.array(n, np.int32), "x": X} for n in (0, 1, 4)])


def test_loop_over_sizes() -> None:
    """The number of steps is a size, the loop's variable keeps its shape."""

    def build(x: Any) -> Any:
        steps = tf.shape(x)[0]
        return tf.while_loop(lambda i, y: i < steps, lambda i, y: (i + 1, y * 2.0 + tf.reshape(x, tf.shape(x))), [0, x])

    check_function(build, [{"x": X}, {"x": np.concatenate([X, X])}])


def test_nested_loops() -> None:
    def build(n: Any, x: Any) -> Any:
        def outer(i: Any, y: Any) -> Any:
            _, z = tf.while_loop(lambda j, z: j < i, lambda j, z: (j + 1, z + x * tf.cast(j, tf.float32)), [0, y])
            return i + 1, tf.cond(tf.equal(i % 2, 0), lambda: z, lambda: -z)

        return tf.while_loop(lambda i, y: i < n, outer, [0, x])

    check_function(build, [{"n": N, "x": X}])


def test_assertion_in_a_loop() -> None:
    def build(n: Any, x: Any) -> Any:
        def body(i: Any, y: Any) -> Any:
            tf.debugging.Assert(i < 3, ["too many"])
            return i + 1, y + 1.0

        return tf.while_loop(lambda i, y: i < n, body, [0, x])

    program = port(trace(build, {"n": N, "x": X}), ["n", "x"])
    run(program, {"n": np.array(3, np.int32), "x": X})
    with pytest.raises(InputError, match="too many"):
        run(program, {"n": N, "x": X})


def test_map_and_scan() -> None:
    def build(x: Any) -> Any:
        return tf.map_fn(lambda row: row * 2.0 + 1.0, x), tf.scan(lambda total, row: total + row, x)

    check_function(build, [{"x": X}, {"x": np.concatenate([X, X])}])


def test_map_over_strings() -> None:
    def build(s: Any) -> Any:
        return tf.map_fn(tf.identity, s)

    check_function(build, [{"s": np.array([b"a", b"", b"\xff"], object)}, {"s": np.zeros(0, object)}])


def test_map_over_nothing() -> None:
    check_function(lambda x: tf.map_fn(lambda row: row * 2.0, x), [{"x": X}, {"x": X[:0]}])


def test_loop_that_changes_what_must_be_known() -> None:
    """A refusal names the loop."""

    def build(x: Any) -> Any:
        return tf.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, tf.reduce_sum(y, i % 2, keepdims=True) + y), [0, x]
        )

    with pytest.raises(PortingError, match="constant"):
        port(trace(build, {"x": X}), ["x"])


# -- the same as TF1 writes it --------------------------------------------------------------------------------------------


def v1(function: Callable[..., Any]) -> Callable[..., Any]:
    """Traces `function` with TF1's control flow."""

    def build(**tensors: Any) -> Any:
        tf.compat.v1.disable_control_flow_v2()
        try:
            return function(**tensors)
        finally:
            tf.compat.v1.enable_control_flow_v2()

    return build


def check_v1(function: Callable[..., Any], batches: list[dict[str, Any]]) -> Program:
    """Like `check_function`, for a graph with Switch and Merge, which TensorFlow runs in a session."""
    program, session, fetches = _build_v1(function, batches[0])
    for batch in batches:
        ours = list(run(program, batch).values())
        theirs = session.run(fetches, {f"{name}:0": value for name, value in batch.items()})
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine, np.asarray(other))
    return program


def _build_v1(function: Callable[..., Any], batch: dict[str, Any]) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.disable_control_flow_v2()
        try:
            feeds = {
                name: tf.compat.v1.placeholder(value.dtype, [None, *value.shape[1:]] if value.ndim else [], name)
                for name, value in batch.items()
            }
            fetches = tf.nest.flatten(function(**feeds))
        finally:
            tf.compat.v1.enable_control_flow_v2()
    return _port_graph(graph, feeds, fetches), tf.compat.v1.Session(graph=graph), fetches


def _port_graph(graph: Any, feeds: dict[str, Any], fetches: list[Any]) -> Program:
    from types import SimpleNamespace

    concrete: Any = SimpleNamespace(graph=graph, inputs=list(feeds.values()), outputs=fetches)
    return port(concrete, list(feeds))


def control_ops(graph_function: Callable[..., Any], batch: dict[str, Any]) -> set[str]:
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.disable_control_flow_v2()
        try:
            graph_function(
                **{name: tf.compat.v1.placeholder(value.dtype, value.shape, name) for name, value in batch.items()}
            )
        finally:
            tf.compat.v1.enable_control_flow_v2()
    return {node.op for node in graph.as_graph_def().node}


def test_v1_branch() -> None:
    def build(p: Any, x: Any) -> Any:
        return tf.cond(p, lambda: (x + 1.0, tf.constant(1)), lambda: (x * 2.0, tf.constant(2)))

    assert {"Switch", "Merge"} <= control_ops(build, yes_and_no()[0])
    program = check_v1(build, yes_and_no())
    assert ops(program).count("cond") == 1


def test_v1_branch_of_constants_only() -> None:
    check_v1(lambda p, x: (tf.cond(p, lambda: 1.0, lambda: 2.0), x), yes_and_no())


def test_v1_nested_branches() -> None:
    def build(p: Any, x: Any) -> Any:
        inner = lambda: tf.cond(tf.reduce_sum(x) > 100.0, lambda: x, lambda: tf.constant(3.0) - x)  # noqa: E731
        return tf.cond(
            p, inner, lambda: tf.cond(p, lambda: x, lambda: tf.cond(x[0, 0] > 0.0, lambda: x[:1], lambda: x * 5.0))
        )

    check_v1(build, [*yes_and_no(), *yes_and_no(X * 100), *yes_and_no(-X)])


def test_v1_branch_known_beforehand() -> None:
    def build(x: Any) -> Any:
        training = tf.compat.v1.placeholder_with_default(False, [])
        return tf.cond(training, lambda: tf.nn.dropout(x, rate=0.5), lambda: x * 2.0)

    assert "cond" not in ops(check_v1(build, [{"x": X}]))


def test_v1_merge_index() -> None:
    def build(p: Any, x: Any) -> Any:
        false, true = tf.raw_ops.Switch(data=x, pred=p)
        return tf.raw_ops.Merge(inputs=[false - 1.0, true + 1.0])

    check_v1(build, yes_and_no())


def test_v1_loop() -> None:
    def build(n: Any, x: Any) -> Any:
        return tf.while_loop(lambda i, y: i < n, lambda i, y: (i + 1, y + x * 2.0), [0, x])

    assert {"Enter", "Exit", "NextIteration", "LoopCond"} <= control_ops(build, {"n": N, "x": X})
    program = check_v1(build, [{"n": np.array(n, np.int32), "x": X} for n in (0, 1, 5)])
    assert ops(program).count("while_loop") == 1


def test_v1_nested_loops_and_branches() -> None:
    def build(n: Any, x: Any) -> Any:
        def outer(i: Any, y: Any) -> Any:
            _, z = tf.while_loop(lambda j, z: j < i, lambda j, z: (j + 1, z + x * tf.cast(j, tf.float32)), [0, y])
            return i + 1, tf.cond(tf.equal(i % 2, 0), lambda: z + 1.0, lambda: -z)

        looped = tf.while_loop(lambda i, y: i < n, outer, [0, x])
        return tf.cond(
            n > 3, lambda: tf.while_loop(lambda i: i < 9, lambda i: i + n, [looped[0]]), lambda: [tf.constant(0)]
        ), looped

    check_v1(build, [{"n": np.array(n, np.int32), "x": X} for n in (0, 1, 5)])


def test_v1_assertions() -> None:
    def build(p: Any, x: Any) -> Any:
        def checked() -> Any:
            with tf.control_dependencies([tf.Assert(tf.reduce_all(x > 0.0), ["must be positive"])]):
                return x * 2.0

        with tf.control_dependencies([tf.Assert(tf.size(x) < 7, ["too long"])]):
            return tf.cond(p, checked, lambda: tf.identity(x))

    program = check_v1(build, [*yes_and_no(np.abs(X)), yes_and_no()[1]])
    with pytest.raises(InputError, match="must be positive"):
        run(program, yes_and_no()[0])
    with pytest.raises(InputError, match="too long"):
        run(program, yes_and_no(np.concatenate([X, X]))[1])


def test_v1_map_and_scan() -> None:
    """TensorArrays in a loop of TF1."""

    def build(x: Any) -> Any:
        return tf.map_fn(lambda row: row * 2.0 + 1.0, x), tf.scan(lambda total, row: total + row, x)

    assert "TensorArrayV3" in control_ops(build, {"x": X})
    check_v1(build, [{"x": X}, {"x": np.concatenate([X, X])}])
