"""Serialized examples, CSV and raw bytes against TensorFlow."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.witness import Case, as_array, assert_equal, case, check_case, check_function, port, run, tf, to_numpy, trace
from torch_towers.errors import InputError
from torch_towers.program.program import Program


def example(**features: Any) -> bytes:
    """A serialized tf.Example; lists of bytes, floats or integers."""
    message = tf.train.Example()
    for key, values in features.items():
        feature = message.features.feature[key]
        if values is None:
            continue
        kinds = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}
        kinds[type(values[0]) if values else int].value.extend(values)
        if not values:
            feature.int64_list.SetInParent()
    return message.SerializeToString()


FULL = example(
    city=[b"Z\xc3\xbcrich\0"],
    size=[1.5, -0.0],
    tags=[b"a", b"", b"c"],
    ids=[-1, 1 << 62],
    clicks=[3, 4, 5],
    open=[1, 2, 3, 4],
    price=[float("nan")],
)
SPARSE = example(city=[b""], tags=None, ids=[], open=None, other=[b"ignored"])
EMPTY = b""
EXAMPLES = as_array([FULL, SPARSE, EMPTY, FULL])

FIXED = {
    "city": tf.io.FixedLenFeature([], tf.string, b"nowhere"),
    "size": tf.io.FixedLenFeature([2], tf.float32, [7.0, 8.0]),
}
VARIABLE = {
    "tags": tf.io.VarLenFeature(tf.string),
    "ids": tf.io.VarLenFeature(tf.int64),
    "price": tf.io.VarLenFeature(tf.float32),
}
RAGGED = {"clicks": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64), "tags": tf.io.RaggedFeature(tf.string)}
OPEN = {"open": tf.io.FixedLenSequenceFeature([2], tf.int64, allow_missing=True, default_value=-9)}


def parser(features: dict[str, Any]) -> Callable[..., Any]:
    """A function that parses `x` and gives all tensors of all features, by name."""

    def parse(x: Any) -> list[Any]:
        parsed = tf.io.parse_example(x, features)
        return [part for _, value in sorted(parsed.items()) for part in tf.nest.flatten(value, expand_composites=True)]

    return parse


CONFIGURATIONS = {
    "fixed": FIXED,
    "variable": VARIABLE,
    "ragged": RAGGED,
    "open": OPEN,
    "all": {**FIXED, **VARIABLE, **OPEN, "clicks": RAGGED["clicks"]},
}


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_parse_example(name: str) -> None:
    check_function(
        parser(CONFIGURATIONS[name]), [{"x": EXAMPLES}, {"x": EXAMPLES[:1]}, {"x": EXAMPLES[1:3]}, {"x": EXAMPLES[:0]}]
    )


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_parse_one_example(name: str) -> None:
    check_function(parser(CONFIGURATIONS[name]), [{"x": as_array(EXAMPLES[index])} for index in range(3)])


@pytest.mark.parametrize("name", ["fixed", "variable", "open"])
def test_parse_single_example(name: str) -> None:
    features = CONFIGURATIONS[name]

    def parse(x: Any) -> list[Any]:
        return tf.nest.flatten(tf.io.parse_single_example(x, features), expand_composites=True)

    check_function(parse, [{"x": as_array(EXAMPLES[index])} for index in range(3)])


def single_op(x: Any) -> Any:
    return tf.raw_ops.ParseSingleExample(
        serialized=x, dense_defaults=[tf.constant([], tf.float32), tf.constant(b"d")], num_sparse=2, sparse_keys=["tags", "ids"],
        dense_keys=["size", "city"], sparse_types=[tf.string, tf.int64], dense_shapes=[[2], []],
    )  # fmt: skip


def test_parse_single_example_op() -> None:
    program = check_function(single_op, [{"x": as_array(FULL)}])
    with pytest.raises(InputError, match=r"size .*is required but could not be found"):
        run(program, {"x": as_array(EMPTY)})


def first_op(x: Any) -> Any:
    return tf.raw_ops.ParseExample(
        serialized=x, names=tf.constant([], tf.string), sparse_keys=["tags", "ids"], dense_keys=["size", "city"],
        dense_defaults=[tf.constant([1.0, 2.0]), tf.constant(b"d")], sparse_types=[tf.string, tf.int64], dense_shapes=[[2], []],
    )  # fmt: skip


def test_parse_example_of_tf1() -> None:
    check_function(first_op, [{"x": EXAMPLES}, {"x": EXAMPLES[:0]}])


# -- what is refused ----------------------------------------------------------------------------------------------------

REQUIRED = {**FIXED, "price": tf.io.FixedLenFeature([], tf.float32)}
REFUSED = {
    "missing": (REQUIRED, example(city=[b"x"])),
    "wrong dtype, dense": (FIXED, example(city=[1])),
    "wrong dtype, sparse": (VARIABLE, example(ids=[1.0])),
    "wrong dtype, ragged": (RAGGED, example(clicks=[b"x"])),
    "too many": (FIXED, example(size=[1.0, 2.0, 3.0])),
    "too few": (FIXED, example(size=[1.0])),
    "stride": (OPEN, example(open=[1, 2, 3])),
    "not an example": (FIXED, b"\x0a\x05hello"),
    "cut": (FIXED, example(size=[1.0, 2.0])[:-3]),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("single", [False, True])
def test_what_tensorflow_refuses_is_refused_with_its_message(name: str, single: bool) -> None:
    features, bad = REFUSED[name]
    good = FULL
    shaped = (lambda item: as_array(item)) if single else (lambda item: as_array([good, item]))
    program = check_function(parser(features), [{"x": shaped(good)}])
    with pytest.raises(tf.errors.InvalidArgumentError) as theirs:
        parser(features)(tf.constant(shaped(bad)))
    with pytest.raises(InputError) as ours:
        run(program, {"x": shaped(bad)})
    start = re.split(r"[.,:]", str(ours.value))[0]
    assert start in theirs.value.message


# -- any bytes ----------------------------------------------------------------------------------------------------------

ANY = {**FIXED, "ids": VARIABLE["ids"], "price": VARIABLE["price"], "tags": VARIABLE["tags"], "open": OPEN["open"]}
KEYS = st.sampled_from(["city", "size", "tags", "ids", "price", "open", "other", ""])


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(tag: int, data: bytes) -> bytes:
    return bytes([tag]) + varint(len(data)) + data


@st.composite
def features(draw: Any) -> bytes:
    """One serialized feature: packed or not, or nothing, or something else."""
    kind = draw(st.sampled_from(["bytes", "floats", "ints", "unpacked ints", "unpacked floats", "empty", "raw"]))
    numbers = draw(st.lists(st.integers(0, (1 << 64) - 1), max_size=4))
    if kind == "bytes":
        return field(0x0A, b"".join(field(0x0A, item) for item in draw(st.lists(st.binary(max_size=3), max_size=4))))
    if kind == "floats":
        packed = np.array(draw(st.lists(st.floats(width=32), min_size=1, max_size=3)), np.float32).tobytes()
        return field(0x12, field(0x0A, packed))
    if (
        kind == "unpacked floats"
    ):  # one only: TensorFlow itself writes past the end of a row of fixed size where there are more
        return field(0x12, b"\x0d" + np.float32(draw(st.floats(width=32))).tobytes())
    if kind == "ints":
        return field(0x1A, field(0x0A, b"".join(map(varint, numbers))))
    if kind == "unpacked ints":
        return field(0x1A, b"".join(b"\x08" + varint(number) for number in numbers))
    return b"" if kind == "empty" else draw(st.binary(max_size=6))


@st.composite
def serialized(draw: Any) -> bytes:
    """An example made by hand: repeated keys, odd orders, unknown fields, then perhaps one byte changed or the end cut off."""
    body = b""
    for key, feature, swapped in draw(st.lists(st.tuples(KEYS, features(), st.booleans()), max_size=4)):
        parts = [field(0x0A, key.encode()), field(0x12, feature)]
        body += field(0x0A, b"".join(reversed(parts) if swapped else parts))
    data = draw(st.sampled_from([b"", b"\x10\x05", b"\x1a\x01x", b"\x1d1234"])) + field(0x0A, body)
    if draw(st.booleans()) and data:
        at, value = draw(st.integers(0, len(data) - 1)), draw(st.integers(0, 255))
        data = data[:at] + bytes([value]) + data[at + 1 :]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 4)) == 0 else data


@pytest.fixture(scope="module", params=[False, True], ids=["batch", "single"])
def both(request: Any) -> tuple[Any, Program, bool]:
    """TensorFlow's and our parser of the features in `ANY`."""
    x = as_array(FULL) if request.param else EXAMPLES
    concrete = trace(parser(ANY), {"x": x})
    return concrete, port(concrete, ["x"]), request.param


@settings(max_examples=150, deadline=None)
@given(data=serialized())
def test_any_bytes(both: tuple[Any, Program, bool], data: bytes) -> None:
    """Both parsers give the same values, or both refuse."""
    assume(not re.search(rb"[\x80-\xff]{3}[\x04-\x7f]", data))  # lengths of gigabytes, which TensorFlow would allocate
    assume(not re.search(rb"\x12.\x0d.{4}\x0d", data, re.DOTALL))  # see `features`
    concrete, program, single = both
    x = as_array(data) if single else as_array([FULL, data])
    try:
        expected = [to_numpy(item) for item in concrete(x=tf.constant(x))]
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the latter: Python cannot read TensorFlow's message
        with pytest.raises(InputError):
            run(program, {"x": x})
        return
    for index, (ours, theirs) in enumerate(zip(run(program, {"x": x}).values(), expected, strict=True)):
        assert_equal(ours, theirs, what=f"output {index}")


# -- CSV and raw bytes --------------------------------------------------------------------------------------------------

RECORDS = as_array([b"1,2.5,x,3", b'\r\n-7,1e3,"a ""b"", c",4', b"9,,NA,5", b"0,inf,\xff,6,"[:-1]])
DEFAULTS = (np.int32(1), np.float32(2), as_array(b"def"), np.int64(0))


def csv(x: Any, **options: Any) -> Any:
    defaults = [tf.constant([1]), tf.constant([2.0]), tf.constant(["def"]), tf.constant([], tf.int64)]
    return tf.io.decode_csv(x, options.pop("defaults", defaults), **options)


def test_csv() -> None:
    check_function(csv, [{"x": RECORDS}, {"x": RECORDS[:0]}])
    check_function(lambda x: csv(x, na_value="NA"), [{"x": RECORDS}])
    check_function(lambda x: csv(x, field_delim=";"), [{"x": as_array([[b"1;2;,;3"], [b"4;5;b;6"]])}])
    check_function(lambda x: csv(x, use_quote_delim=False), [{"x": as_array([b'1,2,"a",3'])}])
    wide = [tf.constant([], tf.float64), tf.constant([b"z"])]
    check_function(lambda x: csv(x, defaults=wide, select_cols=[1, 2]), [{"x": RECORDS[:2]}])


@pytest.mark.parametrize(
    "bad",
    [
        b"1,2,3",
        b"1,2,a,4,5",
        b'1,2,a"b,3',
        b'1,2,"ab,3',
        b'1,2,"a"b,3',
        b"x,2,a,3",
        b"1,y,a,3",
        b"1,2,a,",
        b"3000000000,2,a,3",
    ],
)
def test_csv_that_tensorflow_refuses_is_refused(bad: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        csv(tf.constant([bad]))
    program = check_function(csv, [{"x": RECORDS}])
    with pytest.raises(InputError):
        run(program, {"x": as_array([bad])})


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"1", b",", b'"', b"a", b"\n", b"\r", b" ", b'""', b",,"]), max_size=9).map(b"".join))
def test_any_csv(record: bytes) -> None:
    from torch_towers.ops.parsing import decode_csv

    x, fields = as_array([record]), [b"d", b"e", b"f"]
    try:
        expected = [item.numpy().tolist() for item in tf.raw_ops.DecodeCSV(records=x, record_defaults=fields)]
    except tf.errors.InvalidArgumentError:
        with pytest.raises(InputError):
            decode_csv(x, tuple(map(as_array, fields)), delimiter=b",", quotes=True, missing=b"", columns=())
        return
    ours = decode_csv(x, tuple(map(as_array, fields)), delimiter=b",", quotes=True, missing=b"", columns=())
    assert [item.tolist() for item in ours] == expected


def raw_cases() -> list[Case]:
    rows: list[Case] = []
    data = as_array([[bytes(range(16))], [bytes(range(240, 256))]])
    names = (
        tf.uint8,
        tf.int8,
        tf.int16,
        tf.uint16,
        tf.int32,
        tf.int64,
        tf.float16,
        tf.float32,
        tf.float64,
        tf.bfloat16,
    )
    for dtype in (*names, tf.bool, tf.complex64):
        bits = as_array([[b"\x00\x01\x01\x00" * 4]]) if dtype == tf.bool else data
        for little in (True, False):
            rows.append(case("DecodeRaw", bytes=bits, attrs={"out_type": dtype, "little_endian": little}))
    rows.append(case("DecodeRaw", bytes=data[:0], attrs={"out_type": tf.int32}))
    for dtype in (tf.uint8, tf.int16, tf.uint16, tf.int32, tf.int64, tf.float32, tf.float64, tf.bfloat16):
        for size in (8, 24):
            for little in (True, False):
                rows.append(
                    case(
                        "DecodePaddedRaw",
                        "fixed_length",
                        input_bytes=data,
                        fixed_length=size,
                        attrs={"out_type": dtype, "little_endian": little},
                    )
                )
    return rows


def compressed_cases() -> list[Case]:
    texts = [b"a" * 1000, b"", b"\0\xff"]
    packed = {"ZLIB": zlib.compress, "GZIP": gzip.compress, "": bytes}
    return [
        case("DecodeCompressed", bytes=[[pack(text)] for text in texts], attrs={"compression_type": kind})
        for kind, pack in packed.items()
    ]


CASES: list[Case] = raw_cases() + compressed_cases()
COVERED = {"ParseExample", "ParseExampleV2", "ParseSingleExample", "DecodeCSV", "ParseTensor"}


@pytest.mark.parametrize("row", CASES, ids=str)
def test_case(row: Case) -> None:
    check_case(row)


def test_raw_bytes_of_uneven_length_are_refused() -> None:
    program = check_function(lambda x: tf.io.decode_raw(x, tf.int16), [{"x": as_array([b"abcd", b"efgh"])}])
    for bad in ([b"abcd", b"ef"], [b"abc", b"def"]):
        with pytest.raises(InputError, match="DecodeRaw"):
            run(program, {"x": as_array(bad)})


# -- serialized tensors -------------------------------------------------------------------------------------------------

TENSOR_DTYPES = [
    "float16",
    "bfloat16",
    "float32",
    "float64",
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
    "string",
]
VALUE_FIELDS = {
    "float16": "half_val", "bfloat16": "half_val", "float32": "float_val", "float64": "double_val", "int64": "int64_val",
    "bool": "bool_val", "complex64": "scomplex_val", "complex128": "dcomplex_val", "string": "string_val",
    "uint32": "uint32_val", "uint64": "uint64_val",
}  # fmt: skip


def tensor_proto(dtype: str, shape: list[int], *values: Any, content: bytes = b"") -> bytes:
    """A TensorProto made by hand, its values in the field of its dtype."""
    message = tf.make_tensor_proto(0)
    message.Clear()
    message.dtype = tf.as_dtype(dtype).as_datatype_enum
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    getattr(message, VALUE_FIELDS.get(dtype, "int_val")).extend(values)
    message.tensor_content = content
    return message.SerializeToString()


def tensor_parser(dtype: str) -> Program:
    concrete = trace(lambda x: tf.io.parse_tensor(x, tf.as_dtype(dtype)), {"x": as_array(b"")})
    return port(concrete, ["x"])


def same_tensor(program: Program, data: bytes, dtype: str) -> bool:
    """Both give the same tensor, or both refuse. Says which."""
    try:
        expected = to_numpy(tf.io.parse_tensor(data, tf.as_dtype(dtype)))
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        with pytest.raises(InputError):
            run(program, {"x": as_array(data)})
        return False
    (found,) = run(program, {"x": as_array(data)}).values()
    assert_equal(found, expected)
    return True


@pytest.mark.parametrize("dtype", TENSOR_DTYPES)
def test_parse_tensor(dtype: str) -> None:
    program = tensor_parser(dtype)
    full = tf.constant([[b"a", b""], [b"\xff", b"b"]]) if dtype == "string" else tf.cast([[1, 0], [3, 7]], dtype)
    for tensor in (full, full[0, 0], full[:0]):
        assert same_tensor(program, tf.io.serialize_tensor(tensor).numpy(), dtype)
    values = [b"x", b"yz"] if dtype == "string" else [1, 5] if dtype != "bool" else [True, False]
    for shape in ([], [1], [2], [2, 2], [0], [1, 1, 1]):
        for taken in ([], values[:1], values):
            assert same_tensor(program, tensor_proto(dtype, shape, *taken), dtype)
    assert not same_tensor(program, tensor_proto("int32" if dtype == "int64" else "int64", [1]), dtype)
    assert not same_tensor(program, tensor_proto(dtype, [-1], *values), dtype)
    assert not same_tensor(program, tensor_proto(dtype, [1 << 40, 1 << 40], *values), dtype)
    assert not same_tensor(program, tensor_proto(dtype, [2], content=b"\5" * 33), dtype)


FLOAT = tensor_proto("float32", [2])
ODD_TENSORS = [
    b"", b"xyz", FLOAT + FLOAT, FLOAT[:-1], FLOAT + b"\x2a\x07\0\0\x80\x3f\0\0\0", FLOAT + b"\x28\x01", FLOAT + b"\x0c",
    FLOAT + b"\0\0", b"\x08\x01", b"\x08\x00", b"\x08\x81\x80\x80\x80\x10", b"\x08\x01\x12\x02\x12\x00", b"\x08\x65",
    b"\x08\x01\x12\x02\x18\x01", b"\x08\x01" + b"\x12\x04\x12\x02\x08\x01" * 255, b"\x08\x01\x13\x0b\x0c\x14",
    b"\x08\x01\x12\x08\x12\x06\x08\x02\x12\x02\xff\xfe", FLOAT + b"\x2d\0\0\x80\x3f", b"\x88\x00\x01",
    FLOAT + b"\x22\x08\0\0\x80\x3f\0\0\0\x40", FLOAT + b"\x22\x07\0\0\x80\x3f\0\0\0",
    FLOAT + b"\x72\x02\x04\0", FLOAT + b"\x7a\x00", FLOAT + b"\x7a\x01x",
]  # fmt: skip


def test_odd_tensors() -> None:
    program = tensor_parser("float32")
    assert len({same_tensor(program, data, "float32") for data in ODD_TENSORS}) == 2
    texts = tensor_parser("string")
    for content in (b"\1\1ab", b"\1", b"\1\1abc", b"\5\0a", b"\0\0"):
        same_tensor(texts, tensor_proto("string", [2], content=content), "string")
    same_tensor(tensor_parser("bool"), tensor_proto("bool", [2], content=b"\2\0"), "bool")
    with pytest.raises(InputError, match="scalar"):
        from torch_towers.ops.parsing import parse_tensor

        parse_tensor(as_array([FLOAT]), dtype="float32")


def test_strings_that_are_not_packed() -> None:
    def build(x: Any) -> Any:
        return tf.io.decode_compressed(x, "ZLIB")

    program = check_function(build, [{"x": [zlib.compress(b"a")]}])
    with pytest.raises(InputError, match=r"element \[1\] is not ZLIB data"):
        run(program, {"x": as_array([zlib.compress(b"a"), b"b"])})
