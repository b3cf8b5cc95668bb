from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.errors import PortingError
from porting.saved_model import protos, read
from porting.tower import port_tower
from tests.witness import Case, case, check_case, check_function, tf
from torch_towers.errors import InputError

MATRIX = np.array([[1.0, -0.0], [np.nan, 2.0]], np.float32)

CASES = [
    case("Identity", input=MATRIX),
    case("Identity", input=["a", b"\xff"], label="strings"),
    case("IdentityN", input=([1.0, 2.0], [1, 2])),
    case("StopGradient", input=MATRIX),
    case("PreventGradient", input=MATRIX, attrs={"message": "no"}),
    case("Snapshot", input=MATRIX),
    case("CheckNumerics", tensor=[1.0, 2.0], attrs={"message": "finite"}),
    case("EnsureShape", input=MATRIX, attrs={"shape": [None, 2]}),
    case("PlaceholderWithDefault", input=MATRIX, attrs={"shape": [None, 2]}),
    case("Shape", input=np.zeros((2, 3), np.float32)),
    case("Shape", input=np.zeros((2, 3), np.float32), attrs={"out_type": 9}),
    case("ShapeN", input=(np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32))),
    case("ShapeN", input=(np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)), attrs={"out_type": 9}),
    case("Rank", input=np.zeros((2, 3), np.float32)),
    case("Size", input=np.zeros((2, 3), np.float32)),
    case("Size", input=np.zeros((0, 3), np.float32), attrs={"out_type": 9}, batched=False),
]
COVERED = {
    "Assert",
    "Const",
    "NoOp",
    "ReadVariableOp",
    "VarHandleOp",
    "Variable",
    "VariableShape",
    "VariableV2",
}


@pytest.mark.parametrize("row", CASES, ids=str)
def test_op(row: Case) -> None:
    check_case(row)


def test_constants_and_splats() -> None:
    def function(x: Any) -> Any:
        return [
            x + tf.constant([1.5, -0.0], tf.float32),
            x * tf.fill([2], 3.0),
            tf.constant([b"a", b"b\0"]),
            tf.constant(7),
        ]

    check_function(function, [{"x": MATRIX}])


def test_an_assertion_refuses_what_tensorflow_refuses_with_its_message() -> None:
    def function(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive:", x])]):
            return tf.identity(x)

    program = check_function(function, [{"x": np.array([1.0, 2.0], np.float32)}])
    bad = np.array([1.0, -2.0], np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="x must be positive"):
        tf.function(function)(tf.constant(bad))
    with pytest.raises(InputError, match=r"x must be positive:.*1.*-2"):
        program(x=torch.from_numpy(bad))


def test_numbers_that_tensorflow_refuses_are_refused() -> None:
    program = check_function(lambda x: tf.debugging.check_numerics(x, "logits"), [{"x": np.array([1.0], np.float32)}])
    with pytest.raises(InputError, match="logits : Tensor had Inf or NaN values"):
        program(x=torch.tensor([1.0, float("nan")]))


def test_an_assertion_that_never_holds_is_refused_when_ported() -> None:
    def function(x: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.constant(False), data=["never"])]):
            return tf.identity(x)

    with pytest.raises(PortingError, match="never holds"):
        check_function(function, [{"x": MATRIX}])


def test_resource_variables_are_weights_and_a_variable_read_twice_is_one(tmp_path: Path) -> None:
    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3), name="weight")
            self.frozen = tf.Variable([1.0, 2.0, 3.0], trainable=False, name="frozen")

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def serve(self, x: Any) -> dict[str, Any]:
            shape = tf.raw_ops.VariableShape(input=self.weight.handle, out_type=tf.int32)
            return {"y": x @ self.weight + self.frozen, "again": tf.reduce_sum(self.weight), "shape": shape}

    model = Model()
    tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": model.serve})
    tower = port_tower(read(tmp_path), lifts=False).tower()
    found = tower({"x": MATRIX[:1]})
    expected = model.serve(tf.constant(MATRIX[:1]))
    assert np.array_equal(found["y"].detach().numpy(), expected["y"].numpy())
    assert float(found["again"]) == 15.0
    assert found["shape"].tolist() == [2, 3]
    assert [name for name, _ in tower.encoder.named_parameters()] == ["weight"]
    assert "frozen" in tower.encoder.state_dict()


@pytest.mark.parametrize("op", ["VariableV2", "Variable"])
def test_reference_variables_are_weights(tmp_path: Path, op: str) -> None:
    folder = tmp_path / "model"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        weight = tf.compat.v1.Variable([[1.0], [2.0]], use_resource=False, name="weight")
        y = tf.matmul(x, weight)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
    proto = protos.parse("SavedModel", (folder / "saved_model.pb").read_bytes(), "test")
    for node in proto.meta_graphs[0].graph_def.node:  # "Variable" is what TensorFlow before 1.0 called the same op
        node.op = op if node.op == "VariableV2" else node.op
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
    tower = port_tower(read(folder), lifts=False).tower()
    assert tower({"x": [[3.0, 4.0]]})["y"].tolist() == [[11.0]]
    assert [name for name, _ in tower.encoder.named_parameters()] == ["weight"]
