"""Our message definitions are TensorFlow's, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from porting.errors import CorruptModelError
from porting.saved_model import protos
from porting.saved_model.dtypes import DTYPES

RENAMED = {  # where ours is a top-level message of another name
    "AttrList": "AttrValue.ListValue",
    "NodeList": "CollectionDef.NodeList",
    "BytesList": "CollectionDef.BytesList",
    "AnyList": "CollectionDef.AnyList",
    "MetaInfoDef": "MetaGraphDef.MetaInfoDef",
    "CooSparse": "TensorInfo.CooSparse",
    "CompositeTensor": "TensorInfo.CompositeTensor",
    "ArgDef": "OpDef.ArgDef",
    "ArgAttrs": "FunctionDef.ArgAttrs",
    "Dim": "TensorShapeProto.Dim",
    "ObjectReference": "TrackableObjectGraph.TrackableObject.ObjectReference",
    "TrackableObject": "TrackableObjectGraph.TrackableObject",
    "SerializedTensor": "TrackableObjectGraph.TrackableObject.SerializedTensor",
    "Extent": "TensorSliceProto.Extent",
}


def test_fields_are_those_of_tensorflow() -> None:
    pytest.importorskip("tensorflow")
    from google.protobuf import descriptor_pool
    from tensorflow.core.framework import variable_pb2
    from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2, trackable_object_graph_pb2

    del variable_pb2, saved_model_pb2, tensor_bundle_pb2, trackable_object_graph_pb2  # imported to fill the pool
    theirs_pool = descriptor_pool.Default()
    file = protos.message_class("SavedModel").DESCRIPTOR.file
    for name, ours in file.message_types_by_name.items():
        if name == "Any":
            continue
        theirs = theirs_pool.FindMessageTypeByName(f"tensorflow.{RENAMED.get(name, name)}")
        for field in ours.fields:
            other: Any = theirs.fields_by_name[field.name]
            same = (field.number, field.is_repeated, bool(field.containing_oneof))
            assert same == (other.number, other.is_repeated, bool(other.containing_oneof)), (name, field.name)
            enum_as_number = name == "BundleHeaderProto" and field.name == "endianness"
            assert field.type == other.type or enum_as_number, (name, field.name)
    types = theirs_pool.FindEnumTypeByName("tensorflow.DataType").values_by_number
    assert {number: value.name for number, value in types.items()} == {
        number: dtype.proto for number, dtype in DTYPES.items()
    }
    specs = theirs_pool.FindEnumTypeByName("tensorflow.TypeSpecProto.TypeSpecClass").values_by_name
    for value in file.enum_types_by_name["TypeSpecClass"].values:
        assert specs[value.name].number == value.number


def test_unknown_fields_are_accepted() -> None:
    node = protos.parse("NodeDef", b"\x0a\x01a" + b"\xba\x3e\x03xyz", "here")
    assert node.name == "a"
    assert protos.parse_text("NodeDef", 'name: "a" from_the_future { x: 1 }', "here").name == "a"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff", b"\x0b" * 5000])
def test_damaged_messages_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptModelError, match="here"):
        protos.parse("NodeDef", data, "here")


def test_deep_nesting_is_refused() -> None:
    value = protos.message_class("StructuredValue")()
    inner = value
    for _ in range(200):
        inner = inner.list_value.values.add()
    with pytest.raises(CorruptModelError, match="here"):
        protos.parse("StructuredValue", value.SerializeToString(), "here")
    with pytest.raises(CorruptModelError, match="here"):
        protos.parse_text("StructuredValue", "list_value { values { " * 2000 + "} }" * 2000, "here")
