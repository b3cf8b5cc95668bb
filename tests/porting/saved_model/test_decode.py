"""Constants and attributes, against what TensorFlow itself decodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import AttrPlaceholder, FunctionRef, protos
from porting.saved_model.decode import decode_attr, decode_node, decode_shape, decode_tensor

NUMBERS = [
    "float32",
    "float64",
    "float16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
    "bfloat16",
]
FIELDS = {
    "float32": "float_val", "float64": "double_val", "float16": "half_val", "bfloat16": "half_val", "int64": "int64_val", "bool": "bool_val",
    "uint32": "uint32_val", "uint64": "uint64_val", "complex64": "scomplex_val", "complex128": "dcomplex_val", "string": "string_val",
}  # fmt: skip


def tensor(dtype: int, sizes: list[int], **fields: Any) -> Any:
    proto = protos.message_class("TensorProto")(dtype=dtype, **fields)
    proto.tensor_shape.SetInParent()
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def equal(ours: Any, theirs: np.ndarray[Any, Any]) -> None:
    assert tuple(ours.shape) == theirs.shape
    if isinstance(ours, torch.Tensor):
        assert ours.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == theirs.tobytes()
    elif ours.dtype == np.dtype(object):
        assert ours.tolist() == theirs.tolist()  # bytes
    else:
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", [*NUMBERS, "string"])
@pytest.mark.parametrize(
    "values, shape", [([1, 2, 3], [3]), ([5], [2, 3]), ([1, 2], [2, 2]), ([], [3]), ([], [0, 2]), ([1], [])]
)
def test_values_in_fields(name: str, values: list[int], shape: list[int]) -> None:
    """The last value repeats; no values mean zeros."""
    tf = pytest.importorskip("tensorflow")
    dtype = tf.dtypes.as_dtype(name)
    array = (
        tf.cast(values, dtype).numpy() if name != "string" else np.array([b"%d" % value for value in values], object)
    )
    if name in ("float16", "bfloat16"):
        array = array.view(np.uint16)
    if name.startswith("complex"):
        array = array.view(np.float32 if name == "complex64" else np.float64)
    proto = tensor(dtype.as_datatype_enum, shape, **{FIELDS.get(name, "int_val"): array.tolist()})
    equal(decode_tensor(proto, "here"), np.asarray(tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()))


@pytest.mark.parametrize("name", NUMBERS)
def test_values_in_tensor_content(name: str) -> None:
    tf = pytest.importorskip("tensorflow")
    value = tf.cast([[1, 2, 0], [3, 1, 1]], name)
    proto = protos.parse("TensorProto", tf.make_tensor_proto(value).SerializeToString(), "here")
    equal(decode_tensor(proto, "here"), value.numpy())
    decoded = decode_tensor(proto, "here")
    assert isinstance(decoded, torch.Tensor) or not decoded.flags.writeable


def test_splats_stay_small() -> None:
    splat = decode_tensor(tensor(1, [1 << 20, 1 << 20], float_val=[2.0]), "here")
    assert isinstance(splat, np.ndarray)
    assert splat.strides == (0, 0)
    assert splat[5, 7] == 2
    brain = decode_tensor(tensor(14, [1 << 20, 1 << 20], half_val=[0x3FC0]), "here")
    assert isinstance(brain, torch.Tensor)
    assert brain[3, 4].item() == 1.5
    assert brain.untyped_storage().nbytes() == 2
    zeros = decode_tensor(tensor(7, [1 << 40]), "here")
    assert zeros[9] == b""


@pytest.mark.parametrize(
    "proto, message",
    [
        (tensor(1, [-1], float_val=[1]), r"shape \[-1\]"),
        (tensor(1, [1 << 62, 4]), "2\\*\\*63"),
        (tensor(1, [2], float_val=[1, 2, 3]), "3 values"),
        (tensor(1, [2], tensor_content=b"abc"), "3 bytes of tensor_content, expected 8"),
        (tensor(1, [1 << 40], tensor_content=b"abcd"), "4 bytes"),
        (tensor(1, [1 << 40], float_val=[1, 2]), "refused to expand"),
        (tensor(4, [1], int_val=[256]), "do not fit"),
        (tensor(8, [1], scomplex_val=[1]), "even"),
        (tensor(0, [1]), "invalid"),
        (tensor(77, [1]), "77"),
        (tensor(20, [1]), "resource"),
        (tensor(7, [1], tensor_content=b"a"), "string"),
        (tensor(11, [1], int_val=[1]), "qint8"),
    ],
)  # fmt: skip
def test_bad_constants_are_refused(proto: Any, message: str) -> None:
    with pytest.raises(PortingError, match=message):
        decode_tensor(proto, "here")


def test_attributes() -> None:
    text = """
      name: "n" op: "Op" input: "a:1" input: "^b"
      attr { key: "s" value { s: "x\\377" } } attr { key: "i" value { i: -3 } } attr { key: "f" value { f: 0.5 } } attr { key: "b" value { b: true } }
      attr { key: "type" value { type: DT_BFLOAT16 } } attr { key: "ref" value { type: DT_FLOAT_REF } }
      attr { key: "shape" value { shape { dim { size: -1 } dim { size: 4 } } } } attr { key: "any" value { shape { unknown_rank: true } } }
      attr { key: "tensor" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 7 } } }
      attr { key: "func" value { func { name: "g" attr { key: "T" value { type: DT_INT64 } } } } }
      attr { key: "placeholder" value { placeholder: "T" } } attr { key: "types" value { list { type: DT_INT32 type: DT_STRING } } }
      attr { key: "empty" value { list { } } } attr { key: "shapes" value { list { shape { } } } } attr { key: "unset" value { } }
    """
    node = decode_node(protos.parse_text("NodeDef", text, "here"), "here")
    attrs = dict(node.attrs)
    assert attrs.pop("tensor") == np.int32(7)
    assert (node.name, node.op, node.inputs) == ("n", "Op", ("a:1", "^b"))
    assert attrs == {
        "s": b"x\xff", "i": -3, "f": 0.5, "b": True, "type": "bfloat16", "ref": "float32", "shape": (None, 4), "any": None,
        "func": FunctionRef("g", {"T": "int64"}), "placeholder": AttrPlaceholder("T"), "types": ("int32", "string"), "empty": (),
        "shapes": ((),), "unset": None,
    }  # fmt: skip


def test_bad_attributes_are_refused() -> None:
    value = protos.message_class("AttrValue")()
    value.list.i.append(1)
    value.list.b.append(True)
    with pytest.raises(CorruptModelError, match="here"):
        decode_attr(value, "here")
    shape = protos.message_class("TensorShapeProto")()
    shape.dim.add(size=-2)
    with pytest.raises(CorruptModelError, match="-2"):
        decode_shape(shape, "here")


def test_packed_strings() -> None:
    """Strings as tf.data writes them into constants: TensorFlow reads the same; damaged lengths are refused."""
    texts = [b"", b"a", b"x" * 300, b"\0\xff"]
    content = b"\x00\x01\xac\x02\x02" + b"".join(texts)
    proto = tensor(7, [2, 2], tensor_content=content)
    equal(decode_tensor(proto, "here"), np.array(texts, object).reshape(2, 2))
    for damaged in (content[:-1], content + b"x", b"\x80\x80\x80\x80\x80\x01" + content, content[:3]):
        with pytest.raises(CorruptModelError, match=r"here.*strings"):
            decode_tensor(tensor(7, [2, 2], tensor_content=damaged), "here")
