"""The protocol buffers of a SavedModel: the messages and fields we use, with the field numbers of TensorFlow's public
.proto files.

They use their own descriptor pool and package, so that TensorFlow can be imported into the same process. Unknown fields
are ignored.
"""

from __future__ import annotations

import re
from typing import Any

from porting.errors import CorruptModelError
from porting.saved_model.dtypes import DTYPES
from torch_towers.extras import need

descriptor_pb2, descriptor_pool = (
    need("google.protobuf.descriptor_pb2", "port"),
    need("google.protobuf.descriptor_pool", "port"),
)
message_factory, text_format = (
    need("google.protobuf.message_factory", "port"),
    need("google.protobuf.text_format", "port"),
)
messages = need("google.protobuf.message", "port")

PACKAGE = "torch_towers.saved_model"

SCHEMA = """
message SavedModel { int64 saved_model_schema_version = 1; repeated MetaGraphDef meta_graphs = 2; }
message MetaGraphDef {
  MetaInfoDef meta_info_def = 1; GraphDef graph_def = 2; SaverDef saver_def = 3;
  map<string, CollectionDef> collection_def = 4; map<string, SignatureDef> signature_def = 5;
  repeated AssetFileDef asset_file_def = 6; SavedObjectGraph object_graph_def = 7;
}
message MetaInfoDef { repeated string tags = 4; string tensorflow_version = 5; }
message AssetFileDef { TensorInfo tensor_info = 1; string filename = 2; }
message SaverDef { string filename_tensor_name = 1; string restore_op_name = 3; }
message CollectionDef { oneof kind { NodeList node_list = 1; BytesList bytes_list = 2; AnyList any_list = 5; } }
message AnyList { repeated Any value = 1; }
message Any { string type_url = 1; bytes value = 2; }
message NodeList { repeated string value = 1; }
message BytesList { repeated bytes value = 1; }
message SignatureDef {
  map<string, TensorInfo> inputs = 1; map<string, TensorInfo> outputs = 2; string method_name = 3; map<string, TensorProto> defaults = 4;
}
message TensorInfo {
  oneof encoding { string name = 1; CooSparse coo_sparse = 4; CompositeTensor composite_tensor = 5; }
  DataType dtype = 2; TensorShapeProto tensor_shape = 3;
}
message CooSparse { string values_tensor_name = 1; string indices_tensor_name = 2; string dense_shape_tensor_name = 3; }
message CompositeTensor { TypeSpecProto type_spec = 1; repeated TensorInfo components = 2; }
message VariableDef { string variable_name = 1; bool trainable = 7; }

message GraphDef { repeated NodeDef node = 1; FunctionDefLibrary library = 2; }
message FunctionDefLibrary { repeated FunctionDef function = 1; }
message FunctionDef {
  OpDef signature = 1; map<string, AttrValue> attr = 5; map<uint32, ArgAttrs> arg_attr = 7;
  repeated NodeDef node_def = 3; map<string, string> ret = 4; map<string, string> control_ret = 6;
}
message ArgAttrs { map<string, AttrValue> attr = 1; }
message OpDef { string name = 1; repeated ArgDef input_arg = 2; repeated ArgDef output_arg = 3; repeated string control_output = 20; }
message ArgDef { string name = 1; DataType type = 3; string type_attr = 4; string number_attr = 5; string type_list_attr = 6; }
message NodeDef { string name = 1; string op = 2; repeated string input = 3; string device = 4; map<string, AttrValue> attr = 5; }
message AttrValue {
  oneof value {
    bytes s = 2; int64 i = 3; float f = 4; bool b = 5; DataType type = 6; TensorShapeProto shape = 7; TensorProto tensor = 8;
    AttrList list = 1; NameAttrList func = 10; string placeholder = 9;
  }
}
message AttrList {
  repeated bytes s = 2; repeated int64 i = 3; repeated float f = 4; repeated bool b = 5; repeated DataType type = 6;
  repeated TensorShapeProto shape = 7; repeated TensorProto tensor = 8; repeated NameAttrList func = 9;
}
message NameAttrList { string name = 1; map<string, AttrValue> attr = 2; }
message TensorShapeProto { repeated Dim dim = 2; bool unknown_rank = 3; }
message Dim { int64 size = 1; string name = 2; }
message TensorProto {
  DataType dtype = 1; TensorShapeProto tensor_shape = 2; bytes tensor_content = 4;
  repeated int32 half_val = 13; repeated float float_val = 5; repeated double double_val = 6; repeated int32 int_val = 7;
  repeated bytes string_val = 8; repeated float scomplex_val = 9; repeated int64 int64_val = 10; repeated bool bool_val = 11;
  repeated double dcomplex_val = 12; repeated uint32 uint32_val = 16; repeated uint64 uint64_val = 17; bytes float8_val = 18;
}

message SavedObjectGraph { repeated SavedObject nodes = 1; map<string, SavedConcreteFunction> concrete_functions = 2; }
message SavedObject {
  repeated ObjectReference children = 1;
  oneof kind {
    SavedUserObject user_object = 4; SavedAsset asset = 5; SavedFunction function = 6; SavedVariable variable = 7;
    SavedBareConcreteFunction bare_concrete_function = 8; SavedConstant constant = 9; SavedResource resource = 10;
    CapturedTensor captured_tensor = 12;
  }
  map<string, SaveableObject> saveable_objects = 11;
}
message ObjectReference { int32 node_id = 1; string local_name = 2; }
message SavedUserObject { string identifier = 1; }
message SavedAsset { int32 asset_file_def_index = 1; }
message SavedFunction { repeated string concrete_functions = 1; }
message SavedBareConcreteFunction { string concrete_function_name = 1; repeated string argument_keywords = 2; }
message SavedVariable {
  DataType dtype = 1; TensorShapeProto shape = 2; bool trainable = 3; string name = 6;
  repeated SavedVariable experimental_distributed_variable_components = 8;
}
message SavedConstant { string operation = 1; }
message SavedResource { string device = 1; }
message CapturedTensor { string name = 1; string concrete_function = 2; }
message SaveableObject { int32 save_function = 2; int32 restore_function = 3; }
message SavedConcreteFunction {
  repeated int32 bound_inputs = 2; StructuredValue canonicalized_input_signature = 3; StructuredValue output_signature = 4;
}
message StructuredValue {
  oneof kind {
    NoneValue none_value = 1; double float64_value = 11; sint64 int64_value = 12; string string_value = 13; bool bool_value = 14;
    TensorShapeProto tensor_shape_value = 31; DataType tensor_dtype_value = 32; TensorSpecProto tensor_spec_value = 33;
    TypeSpecProto type_spec_value = 34; TensorSpecProto bounded_tensor_spec_value = 35; ListValue list_value = 51;
    ListValue tuple_value = 52; DictValue dict_value = 53; NamedTupleValue named_tuple_value = 54;
    TensorProto tensor_value = 55; TensorProto numpy_value = 56;
  }
}
message NoneValue { }
message TensorSpecProto { string name = 1; TensorShapeProto shape = 2; DataType dtype = 3; }
message TypeSpecProto { TypeSpecClass type_spec_class = 1; StructuredValue type_state = 2; string type_spec_class_name = 3; int32 num_flat_components = 4; }
message ListValue { repeated StructuredValue values = 1; }
message DictValue { map<string, StructuredValue> fields = 1; }
message NamedTupleValue { string name = 1; repeated PairValue values = 2; }
message PairValue { string key = 1; StructuredValue value = 2; }
enum TypeSpecClass {
  UNKNOWN = 0; SPARSE_TENSOR_SPEC = 1; INDEXED_SLICES_SPEC = 2; RAGGED_TENSOR_SPEC = 3; TENSOR_ARRAY_SPEC = 4; DATA_DATASET_SPEC = 5;
  DATA_ITERATOR_SPEC = 6; OPTIONAL_SPEC = 7; PER_REPLICA_SPEC = 8; VARIABLE_SPEC = 9; ROW_PARTITION_SPEC = 10; REGISTERED_TYPE_SPEC = 12;
  EXTENSION_TYPE_SPEC = 13;
}

message TrackableObjectGraph { repeated TrackableObject nodes = 1; }
message TrackableObject { repeated ObjectReference children = 1; repeated SerializedTensor attributes = 2; }
message SerializedTensor { string name = 1; string full_name = 2; string checkpoint_key = 3; }
message BundleHeaderProto { int32 num_shards = 1; int32 endianness = 2; VersionDef version = 3; }
message VersionDef { int32 producer = 1; int32 min_consumer = 2; repeated int32 bad_consumers = 3; }
message BundleEntryProto {
  DataType dtype = 1; TensorShapeProto shape = 2; int32 shard_id = 3; int64 offset = 4; int64 size = 5; fixed32 crc32c = 6;
  repeated TensorSliceProto slices = 7;
}
message TensorSliceProto { repeated Extent extent = 1; }
message Extent { int64 start = 1; oneof has_length { int64 length = 2; } }
"""

_FIELD = descriptor_pb2.FieldDescriptorProto
_TOKEN = re.compile(
    r"(?P<block>message|oneof|enum)\s+(?P<name>\w+)\s*\{"
    r"|map<(?P<key>\w+),\s*(?P<value>\w+)>\s+(?P<map>\w+)\s*=\s*(?P<map_number>\d+);"
    r"|(?P<repeated>repeated\s+)?(?P<type>\w+)\s+(?P<field>\w+)\s*=\s*(?P<number>\d+);"
    r"|(?P<enumerator>\w+)\s*=\s*(?P<enum_number>\d+);"
    r"|(?P<end>\})"
)


def _file_descriptor(schema: str) -> Any:
    """Parses the subset of the .proto language used in `SCHEMA`."""
    file = descriptor_pb2.FileDescriptorProto(name="torch_towers/saved_model.proto", package=PACKAGE, syntax="proto3")
    data_type = file.enum_type.add(name="DataType")
    for number, name in sorted(DTYPES.items()):
        data_type.value.add(name=name.proto, number=number)
    enums = {"DataType", *re.findall(r"enum (\w+)", schema)}
    blocks: list[Any] = []

    def add_field(message: Any, name: str, number: int, kind: str, repeated: bool) -> Any:
        field = message.field.add(
            name=name, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
        )
        scalar = getattr(_FIELD, f"TYPE_{kind.upper()}", None)
        if scalar is not None:
            field.type = scalar
        else:
            field.type = _FIELD.TYPE_ENUM if kind in enums else _FIELD.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{kind}"
        return field

    for token in _TOKEN.finditer(schema):
        if token["block"] == "message":
            blocks.append(file.message_type.add(name=token["name"]))
        elif token["block"] == "enum":
            blocks.append(file.enum_type.add(name=token["name"]))
        elif token["block"] == "oneof":
            blocks[-1].oneof_decl.add(name=token["name"])
            blocks.append(blocks[-1])
        elif token["end"]:
            blocks.pop()
        elif token["enumerator"]:
            blocks[-1].value.add(name=token["enumerator"], number=int(token["enum_number"]))
        elif token["map"]:
            entry_name = token["map"].title().replace("_", "") + "Entry"
            entry = blocks[-1].nested_type.add(name=entry_name)
            entry.options.map_entry = True
            add_field(entry, "key", 1, token["key"], repeated=False)
            add_field(entry, "value", 2, token["value"], repeated=False)
            field = add_field(blocks[-1], token["map"], int(token["map_number"]), "bytes", repeated=True)
            field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{blocks[-1].name}.{entry_name}"
        else:
            field = add_field(blocks[-1], token["field"], int(token["number"]), token["type"], bool(token["repeated"]))
            if len(blocks) > 1:
                field.oneof_index = 0
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file_descriptor(SCHEMA))  # type: ignore[reportAttributeAccessIssue]  # missing from the stubs


def message_class(name: str) -> Any:
    """The message class `name` ("SavedModel", "BundleEntryProto", ...)."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def parse(name: str, data: bytes, where: str) -> Any:
    """Parses the message `name` from binary. Raises CorruptModelError, which starts with `where`."""
    message: Any = message_class(name)()
    try:
        message.ParseFromString(data)
    except (messages.DecodeError, ValueError) as error:
        raise CorruptModelError(
            f"{where}: {len(data)} bytes that are not a {name} message ({error}); the file is damaged"
        ) from error
    return message


def parse_text(name: str, text: str, where: str) -> Any:
    """Parses the message `name` from text (.pbtxt). Raises CorruptModelError, which starts with `where`."""
    message: Any = message_class(name)()
    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise CorruptModelError(f"{where}: not a {name} message in text form ({error})") from error
    return message
