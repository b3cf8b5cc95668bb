"""The native core is bit-exact with its Python fallback, and leaves unusual values to it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torch_towers.errors import CheckpointError, InputError
from torch_towers.graph.graph import BATCH, TensorSpec
from torch_towers.inputs.reader import InputReader
from torch_towers.kernels import native
from torch_towers.layers.lookups import IntegerLookup, StringLookup
from torch_towers.layers.text import TextVectorization
from torch_towers.ops.hashing import hash_bucket_fast, hash_bucket_strong
from torch_towers.ops.parsing import parse_examples
from torch_towers.ops.strings import ngrams, strings

core = native.core
pytestmark = pytest.mark.skipif(core is None, reason="the native core was not built (no compiler)")

TOKENS = st.sampled_from([b"", b"a", b"b", b"ab", b"\xff", b"a\0b", "\u00e9".encode(), b"zz", b"[UNK]"])
SPACES = st.sampled_from([b" ", b"  ", b"\t", b"\n", b"\v\f\r", b"\x1c", b"\x85", b"\xa0", b""])
TEXTS = st.lists(st.tuples(TOKENS, SPACES), max_size=6).map(lambda parts: b"".join(a + b for a, b in parts))


def both(function: Any, *args: Any) -> tuple[Any, Any]:
    """The result with the core and without it; an InputError counts as its message."""
    results: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for present in (core, None):
            patch.setattr(native, "core", present)
            try:
                results.append(function(*args))
            except (InputError, CheckpointError) as error:
                results.append(str(error))
    return results[0], results[1]


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, tuple):
        assert isinstance(other, tuple) and len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape
        if one.dtype == torch.bfloat16:  # numpy has none
            one, other = one.float(), other.float()
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    elif isinstance(one, np.ndarray):
        assert one.shape == other.shape and one.tolist() == other.tolist()
    else:
        assert one == other


@settings(max_examples=100, deadline=None)
@given(st.lists(TOKENS, max_size=12), st.sampled_from([0, 3]), st.sampled_from([None, b"a", b""]))
def test_string_lookup(tokens: list[bytes], buckets: int, mask: bytes | None) -> None:
    layer = StringLookup(strings([b"a", b"ab", b"\xff"], (3,)), 4, 1, buckets, mask, 0)
    assert_same(*both(layer, strings(tokens, (-1,))))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from([0, 1, -1, 5, 2**31 - 1, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)),
        max_size=6,
    ),
    st.sampled_from([torch.int64, torch.int32, torch.float64, torch.uint8]),
    st.sampled_from([0, 3]),
    st.sampled_from([None, 0, 5, 2**64]),
)
def test_integer_lookup(values: list[int], dtype: torch.dtype, buckets: int, mask: int | None) -> None:
    for vocabulary in (torch.tensor([1, 2**63 - 1, -(2**63), 5]), torch.tensor([5, -1], dtype=torch.int32)):
        layer = IntegerLookup(vocabulary, 2, 4, buckets, mask, 0)
        x = torch.tensor(values, dtype=torch.int64).to(dtype)
        assert_same(*both(layer, x))
        assert_same(*both(layer, torch.stack([x, x], 1)[:, 1]))


def test_lookups_are_done_by_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, words = IntegerLookup(torch.tensor([7, 8]), 1, 0), StringLookup(strings([b"a", b"b"], (2,)), 1, 0, 5)
    for layer in (numbers, words):
        monkeypatch.setattr(layer.vocabulary, "_array_of_list", None)
    assert numbers(torch.tensor([[8], [9]])).tolist() == [[2], [0]]
    assert words(strings([b"b", b"a"], (2,))).tolist() == [2, 1]


@pytest.mark.parametrize("given", [torch.tensor([1, 2, 1]), strings([b"a", b"b", b"a"], (3,))])
def test_a_token_that_is_there_twice(given: Any) -> None:
    first, second = both(lambda: (IntegerLookup if isinstance(given, torch.Tensor) else StringLookup)(given, 1, 0))
    assert first == second == "a vocabulary holds a token twice"


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, max_size=5), st.integers(0, 4), st.sampled_from([-1, 0, 7]))
def test_text_vectorization(texts: list[bytes], length: int, pad: int) -> None:
    layer = TextVectorization(
        strings([b"a", b"ab", b"\xff"], (3,)), 2, 1, 0, b"", 0, lowercase="ascii", replace=((b"[.!]", b""),), output_mode="int",
        length=length, pad_id=pad,
    )  # fmt: skip
    assert_same(*both(layer, strings(texts, (-1,))))


# -- inputs -------------------------------------------------------------------------------------------------------------

ODD: dict[str, Any] = {
    "string": [None, "\ud800", 1, 1.5, ["a"], np.str_("n"), np.bytes_(b"n"), bytearray(b"b"), ("a",), True],
    "number": [None, True, "1", float("nan"), float("inf"), -0.0, 1e300, 1e-46, 16777217, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63),
               2**64, 10**400, 1.5, [1.0], np.float32(1.5), np.int64(3), 3.0, 1j],
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "string": st.one_of(st.text(max_size=4), st.binary(max_size=4)),
    "float": st.floats(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
}


@st.composite
def columns(draw: Any) -> tuple[Any, Any, str]:
    """A column, a list of one kind with at times something odd among it, and the dtype of its feature."""
    kind = draw(st.sampled_from(sorted(PLAIN)))
    values = draw(st.lists(PLAIN[kind], max_size=5))
    if draw(st.integers(0, 2)) == 0:
        values.insert(
            draw(st.integers(0, len(values))), draw(st.sampled_from(ODD["string" if kind == "string" else "number"]))
        )
    dtype = draw(st.sampled_from(["string", "float32", "float64", "int64", "int32", "bool", "int8", "bfloat16"]))
    if draw(st.integers(0, 3)):
        dtype = {"string": "string", "float": "float32", "int": "int32", "long": "int64"}[kind]
    if draw(st.integers(0, 9)) == 0:
        values = tuple(values)
    return values, draw(st.sampled_from([(BATCH,), (BATCH, 1), (BATCH, 2), (3,), (BATCH, None), None])), dtype


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=400, deadline=None)
@given(columns())
def test_reader(given: tuple[Any, Any, str]) -> None:
    column, shape, dtype = given
    reader = InputReader([TensorSpec("x", dtype, shape)])
    native_one, python_one = both(lambda: reader({"x": column}))
    if isinstance(native_one, str):
        assert native_one == python_one
        return
    assert_same(native_one[0]["x"], python_one[0]["x"])
    assert native_one[1] == python_one[1]
    if dtype == "string":
        assert all(type(value) is bytes for value in native_one[0]["x"].ravel().tolist())


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 62), st.integers(0, 40), st.integers(-1, 1), st.sampled_from([1, -1]))
@example(60, 36, 1, 1)
def test_integers_are_rounded_to_float32_as_numpy_rounds_them(power: int, half: int, more: int, sign: int) -> None:
    """Through float64: 2^60 + 2^36 + 1 is a tie there, which the one step to float32 does not see."""
    values = [sign * ((1 << power) + (1 << half) + more)] * 2
    out = np.empty(2, np.float32)
    assert core.numbers(values, out)
    np.testing.assert_array_equal(out, np.array(values, np.float32))


def test_plain_columns_are_read_by_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_towers.inputs.reader.read_column", None)
    specs = [
        TensorSpec("s", "string", (BATCH,)),
        TensorSpec("f", "float32", (BATCH, 1)),
        TensorSpec("i", "int64", (BATCH,)),
    ]
    read, rows = InputReader(specs)({"s": ["a", b"\xff", "\u00e9"], "f": [1, 2, 3], "i": [1, 2, -3]})
    assert rows == 3 and read["s"].tolist() == [b"a", b"\xff", b"\xc3\xa9"]
    assert read["f"].tolist() == [[1.0], [2.0], [3.0]] and read["i"].tolist() == [1, 2, -3]


# -- tf.Example ---------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def part(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def feature(kind: str, values: list[Any], packed: bool) -> bytes:
    if kind == "string":
        return part(0x0A, b"".join(part(0x0A, value) for value in values))
    if kind == "float32":
        raw = [struct.pack("<f", value) for value in values]
        return part(0x12, part(0x0A, b"".join(raw)) if packed else b"".join(b"\x0d" + one for one in raw))
    numbers = [varint(value) for value in values]
    return part(0x1A, part(0x0A, b"".join(numbers)) if packed else b"".join(b"\x08" + one for one in numbers))


VALUES = {
    "string": st.sampled_from([b"", b"x", b"y" * 200, b"\xff\0"]),
    "float32": st.floats(width=32),
    "int64": st.integers(-(2**63), 2**63 - 1),
}
COLUMNS = (
    (b"s", "string", ()),
    (b"f", "float32", (2,)),
    (b"i", "int64", ()),
    (b"t", "string", (2, 1)),
    (b"g", "float32", ()),
)


@st.composite
def serialized(draw: Any) -> bytes:
    """An example: nearly always a plain one, sometimes with a feature missing, repeated, of another kind or length, or broken."""
    entries: list[bytes] = []
    for key, kind, shape in draw(st.permutations([*COLUMNS, (b"other", "int64", ())])):
        if draw(st.integers(0, 9)) == 0:
            continue
        odd = draw(st.integers(0, 30))
        actual = draw(st.sampled_from(sorted(VALUES))) if odd == 0 else kind
        size = draw(st.integers(0, 3)) if odd == 1 else max(1, int(np.prod(shape)))
        content = feature(actual, [draw(VALUES[actual]) for _ in range(size)], draw(st.booleans()))
        content = b"" if odd == 2 else content
        entry = part(0x0A, key) + part(0x12, content)
        entries += [part(0x0A, entry)] * (2 if odd == 3 else 1)
    data = part(0x0A, b"".join(entries)) if entries or draw(st.booleans()) else b""
    damage = draw(st.integers(0, 12))
    place = draw(st.integers(0, len(data)))
    if damage == 0:
        return data[:place]
    if damage == 1 and data:
        return data[: place - 1] + bytes([draw(st.integers(0, 255))]) + data[place:]
    return data + (b"\x10\x01" if damage == 2 else b"")


@settings(max_examples=300, deadline=None)
@given(st.lists(serialized(), max_size=3), st.booleans())
def test_examples(items: list[bytes], defaults: bool) -> None:
    given: tuple[Any, ...] = (
        strings([b"none"], ()), torch.tensor([1.5, float("nan")]), torch.tensor(-3), strings([b"p", b"q"], (2, 1)), torch.tensor(2.5),
    )  # fmt: skip
    if not defaults:
        given = (*given[:2], torch.empty(0, dtype=torch.int64), *given[3:])

    def parse(batch: list[bytes]) -> Any:
        return parse_examples(strings(batch, (-1,)), strings([], (0,)), given, sparse=(), dense=COLUMNS, ragged=())

    assert_same(*both(parse, items))


UNEVEN = [(key, dtype) for key, dtype, _ in COLUMNS]


@settings(max_examples=300, deadline=None)
@given(st.lists(serialized(), max_size=3))
def test_uneven_examples(items: list[bytes]) -> None:
    """Features of any length, sparse and ragged."""

    def parse(batch: list[bytes]) -> Any:
        sparse, ragged = tuple(UNEVEN[:3]), tuple((key, dtype, "int32") for key, dtype in UNEVEN[3:])
        return parse_examples(strings(batch, (-1,)), strings([], (0,)), (), sparse=sparse, dense=(), ragged=ragged)

    assert_same(*both(parse, items))


def test_plain_uneven_examples_are_read_by_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_towers.ops.parsing._read", None)  # makes the Python fallback fail
    rows = [
        {b"f": ("float32", [1.0, 2.0]), b"s": ("string", [b"x", b""]), b"i": ("int64", [-5])},
        {},
        {b"i": ("int64", [1, 2**62, 3]), b"s": ("string", [])},
    ]
    for packed in (True, False):
        items = [
            part(0x0A, b"".join(part(0x0A, part(0x0A, k) + part(0x12, feature(*v, packed))) for k, v in row.items()))
            for row in rows
        ]
        found = parse_examples(
            strings(items, (3,)), strings([], (0,)), (), dense=(),
            sparse=((b"f", "float32"), (b"s", "string")), ragged=((b"i", "int64", "int64"),),
        )  # fmt: skip
        assert [indices.tolist() for indices in found[:2]] == [[[0, 0], [0, 1]], [[0, 0], [0, 1]]]
        assert found[2].tolist() == [1.0, 2.0] and found[3].tolist() == [b"x", b""]
        assert [shape.tolist() for shape in found[4:6]] == [[3, 2], [3, 2]]
        assert found[6].tolist() == [-5, 1, 2**62, 3] and found[7].tolist() == [0, 1, 1, 4]


KEYS = st.binary(min_size=16, max_size=16)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), KEYS, st.integers(1, 2**31))
def test_hashes(items: list[bytes], key: bytes, buckets: int) -> None:
    texts, words = strings(items, (-1,)), struct.unpack("<2Q", key)
    assert_same(*both(lambda: (hash_bucket_fast(texts, num_buckets=buckets),)))
    assert_same(*both(lambda: (hash_bucket_strong(texts, num_buckets=buckets, key=words),)))


def test_hashes_of_every_length() -> None:
    texts = strings([bytes(i * 7 % 251 for i in range(size)) for size in range(700)], (-1,))
    assert_same(*both(lambda: (hash_bucket_fast(texts, num_buckets=2**62),)))
    assert_same(*both(lambda: (hash_bucket_strong(texts, num_buckets=2**62, key=(1, 2**64 - 1)),)))
    many = strings([b"%d" % i for i in range(10_000)], (100, 100))  # hashed without Python's lock
    assert_same(*both(lambda: (hash_bucket_fast(many, num_buckets=997),)))


@st.composite
def rows_of_tokens(draw: Any) -> tuple[list[bytes], torch.Tensor]:
    """Tokens and their row splits, at times ones that are wrong."""
    rows = draw(st.lists(st.lists(st.one_of(TOKENS, st.binary(max_size=20)), max_size=5), max_size=4))
    splits = [0, *np.cumsum([len(row) for row in rows]).tolist()]
    if draw(st.integers(0, 9)) == 0:
        splits[draw(st.integers(0, len(splits) - 1))] += draw(st.sampled_from([-1, 1, 2**40]))
    dtype = torch.int64 if max(splits) > 2**31 else draw(st.sampled_from([torch.int64, torch.int32]))
    return [token for row in rows for token in row], torch.tensor(splits, dtype=dtype)


@settings(max_examples=500, deadline=None)
@given(
    rows_of_tokens(), st.sampled_from([(1,), (2,), (1, 2), (3, 1, 7), (), (0,), (2**40,)]), st.sampled_from([b"", b" ", b"\0__"]), st.sampled_from([b"", b"<"]),
    st.sampled_from([-1, 0, 1, 5]), st.booleans(),
)  # fmt: skip
def test_ngrams(
    given: tuple[list[bytes], torch.Tensor],
    widths: tuple[int, ...],
    separator: bytes,
    left: bytes,
    pads: int,
    short: bool,
) -> None:
    tokens, splits = given
    if 2**40 in widths and pads:  # so much padding fits into no memory
        pads = 0

    def grams() -> Any:
        return ngrams(
            strings(tokens, (-1,)), splits, separator=separator, widths=widths, left_pad=left, right_pad=b"end", pad_width=pads, preserve_short=short,
        )  # fmt: skip

    assert_same(*both(grams))


def test_ngrams_are_joined_by_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_towers.ops.strings.pairwise", None)  # makes the Python fallback fail
    tokens = strings([b"a", b"b", b"c", b"d"], (4,))
    grams, splits = ngrams(
        tokens, torch.tensor([0, 3, 3, 4]), separator=b"-", widths=(1, 2), left_pad=b"<", pad_width=-1
    )
    assert grams.tolist() == [b"a", b"b", b"c", b"<-a", b"a-b", b"b-c", b"c-", b"<-", b"d", b"<-d", b"d-"]
    assert splits.tolist() == [0, 7, 8, 11]


def test_plain_examples_are_read_by_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_towers.ops.parsing._read", None)  # makes the Python fallback fail
    entries = [(b"f", "float32", [1.0, 2.0]), (b"s", "string", [b"x"]), (b"i", "int64", [-5])]
    item = part(0x0A, b"".join(part(0x0A, part(0x0A, k) + part(0x12, feature(t, v, True))) for k, t, v in entries))
    empty: Any = (strings([], (0,)), torch.empty(0), torch.empty(0, dtype=torch.int64))
    found = parse_examples(
        strings([item, item], (2,)), strings([], (0,)), empty, sparse=(), dense=COLUMNS[:3], ragged=()
    )
    assert found[0].tolist() == [b"x", b"x"]
    assert found[1].tolist() == [[1.0, 2.0]] * 2 and found[2].tolist() == [-5, -5]


def test_wrong_arguments_are_refused() -> None:
    out, one = np.empty(2, np.int64), strings([b""], (1,))
    for call in (
        lambda: core.lookup({}, [b"a"], 0, out),
        lambda: core.lookup({}, [b"a"], 0, b"12345678"),
        lambda: core.lookup({b"a": "text"}, [b"a", b"b"], 0, out),
        lambda: core.find({}, strings([b"a", b"b"], (2,)), 0, out),
        lambda: core.find(core.Words(1, 8), [b"a", b"b"], 0, out),
        lambda: core.find(core.Words(1, 8), out, 0, out),
        lambda: core.find(core.Words(1, 8), strings([b"a"], (1,)), 0, out),
        lambda: core.find(core.Words(1, 8), strings([b"a", b"b"], (2,)), 2**64, out),
        lambda: core.find(core.Words(1, 8), strings([b"a", b"b"], (2,)), 0, b"x" * 16),
        lambda: core.find(core.Words(1, 8), strings([b"a"] * 4, (4,))[::2], 0, out),
        lambda: core.find_integers(core.Words(1, 8), out, 0, np.empty(3, np.int64)),
        lambda: core.find_integers(core.Words(1, 8), np.empty(4, np.int64)[::2], 0, out),
        lambda: core.Words(-1, 8),
        lambda: core.Words(1, -8),
        lambda: core.Words(2**62, 8),
        lambda: core.Words(1, 2**62),
        lambda: core.Words(1, 64).add(b"a", [2**64]),
        lambda: core.Words(1, 64).add(b"a", ["1"]),
        lambda: core.Words(1, 64).add("a", [1]),
        lambda: core.Words(1, 64).extend([b"a"], 1),
        *(
            lambda at=at: core.text_ids(
                core.Words(1, 8),
                b"\0" * (256 + at) + b"\3" + b"\0" * (255 - at),
                b"",
                b"",
                0,
                0,
                strings([b"a"], (1,)),
                out,
            )
            for at in (0, 97, 255)  # a byte that is white space and left out at once
        ),
        lambda: core.text_ids(core.Words(1, 8), b"x" * 511, b"", b"", 0, 0, strings([b"a"], (1,)), out),
        lambda: core.text_ids(core.Words(1, 8), b"\0" * 512, b"", b"", 0, 0, strings([b"a"] * 3, (3,)), out),
        lambda: core.text_ids(core.Words(1, 8), b"\0" * 512, b"", b"", 0, 0, strings([], (0,)), out),
        lambda: core.text_ids(core.Words(1, 8), b"\0" * 512, b"", b"", "1", 0, strings([b"a"], (1,)), out),
        lambda: core.text_ids(core.Words(1, 8), b"\0" * 512, b"", b"", 0, 0, [b"a"], out),
        *(
            lambda style=style: core.text_ids(
                core.Words(1, 8), b"\0" * 512, style[0], b"", style[1], 0, strings([b"a"], (1,)), out, *style[2:]
            )
            for style in (
                (b"", 0, (0,), b" ", 0, False),
                (b"", 0, (1,) * 17, b" ", 0, False),
                (b"", 0, ("1",), b" ", 0, False),
                (b"", 0, [1], b" ", 0, False),
                (b"", None, (1,), b" ", 0, False),
                (b"\0" * 8, 0, (1,), b" ", 0, False),
                (b"", 0, (), b" ", 3, False),
            )
        ),
        lambda: core.text_ids(
            core.Words(1, 8), b"\0" * 512, b"", b"", 0, 0, strings([], (0,)), None, (), b"", 8, False
        ),
        lambda: core.encode([b"a"], out),
        lambda: core.numbers([1.0], out),
        lambda: core.numbers([1.0, 2.0], b"x" * 16),
        lambda: core.numbers([1.0, 2.0], np.empty(2, np.uint64)),
        lambda: core.numbers([1.0, 2.0], np.empty(2, object)),
        lambda: core.numbers([1.0, 2.0], np.empty(2, [("x", "f8")])),
        lambda: core.numbers([1.0, 2.0], np.empty(2, np.float16)),
        lambda: core.numbers([1.0, 2.0], np.empty(4)[::2]),
        lambda: core.numbers((1.0, 2.0), np.empty(2)),
        lambda: core.encode([b"a"], np.empty(2, object)),
        lambda: core.encode([b"a", b"b"], strings([b"a"] * 4, (4,))[::2]),
        lambda: core.examples(one, ((b"k", 0x12, 2**62, out, None),)),
        lambda: core.examples([b""], ()),
        lambda: core.examples(one, ((b"k", 0x0A, 1, [None], None),)),
        lambda: core.examples(one, ((b"k", 0x0A, 1, np.empty(2, object), None),)),
        lambda: core.examples(one, ((b"k", 0x0A, 1, np.empty(1, np.int64), None),)),
        lambda: core.examples(one, ((b"k", 0x0A, 1, np.empty(1, object), (b"a", b"b")),)),
        lambda: core.examples(one, ((b"k", 7, 1, out, None),)),
        lambda: core.examples(one, ((b"k", 7, 0, None, None),)),
        lambda: core.ngrams([b""], out, (1,), b"", b"", b"", 0, False, out),
        lambda: core.ngrams(one, out, [1], b"", b"", b"", 0, False, out),
        lambda: core.ngrams(one, out, ("1",), b"", b"", b"", 0, False, np.empty(3, np.int64)),
        lambda: core.ngrams(one, np.array([0, 1]), ("1",), b"", b"", b"", 0, False, out),
        lambda: core.hashes(one, b"key", out),
        lambda: core.hashes(one, b"", out),
        lambda: core.hashes([b""], b"", np.empty(1, np.uint64)),
    ):
        with pytest.raises((TypeError, ValueError, BufferError, OverflowError)):
            call()
    assert core.lookup({}, ["text", b"a"], 0, out) is False
    odd = strings([bytearray(b"a"), b"a"], (2,))  # type: ignore[list-item]
    assert core.find(core.Words(1, 8), odd, 0, out) == [0]
    assert core.text_ids(core.Words(1, 8), b"\0" * 512, b"", b"", 0, 0, odd, out) == ([0], [])
    assert core.encode(["a", 1], np.empty(2, object)) is False
    assert core.encode(["a", "\ud800"], np.empty(2, object)) is False
    assert core.encode({"a": 1}, np.empty(1, object)) is False
    assert core.examples(strings(["text"], (1,)), ()) is None  # type: ignore[list-item]
    texts: Any = strings(["text"], (1,))  # type: ignore[list-item]
    assert core.ngrams(texts, np.array([0, 1]), (1,), b"", b"", b"", 0, False, out) is None
    assert core.ngrams(one, np.array([0, 2]), (1,), b"", b"", b"", 0, False, out) is None
    assert core.hashes(strings(["text"], (1,)), b"", np.empty(1, np.uint64)) is False  # type: ignore[list-item]


@pytest.mark.skipif(native.core is None, reason="native code is off or not built")
def test_a_module_of_other_sources_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a pull without a build: its functions may be others than the ones that Python calls."""
    assert native.loaded("_native", "core/*.[ch]") is native.core
    monkeypatch.setattr(native, "crc32", lambda data: 0)
    with pytest.warns(UserWarning, match="was built from other sources, so slower Python code runs instead"):
        assert native.loaded("_native", "core/*.[ch]") is None
    assert native.loaded("_native", "no such folder/*.c") is native.core  # an installed package, without sources
