"""Users' inputs become a tower's inputs; invalid ones raise one sentence with feature and row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.torch_towers.towers import strings
from torch_towers.errors import InputError
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.reader import InputReader, read_column

WORD = TensorSpec("word", "string", ("batch",))
WORD1 = TensorSpec("word", "string", ("batch", 1))
WORDS2 = TensorSpec("words", "string", ("batch", 2))
IDS = TensorSpec("id", "int64", ("batch",))
IDS32 = TensorSpec("id", "int32", ("batch",))
SIZE = TensorSpec("size", "float32", ("batch",))
SIZE1 = TensorSpec("size", "float32", ("batch", 1))
VECTOR = TensorSpec("vector", "float32", ("batch", 3))
FREE = TensorSpec("tokens", "string", ("batch", None))
FLAG = TensorSpec("flag", "bool", ("batch",))
SCALAR = TensorSpec("scale", "float32", ())


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor) and found.dtype == expected.dtype and found.shape == expected.shape
        assert torch.equal(found.nan_to_num(7.5), expected.nan_to_num(7.5))
    else:
        assert found.dtype == object and found.shape == expected.shape and found.tolist() == expected.tolist()
        assert all(type(value) is bytes for value in found.reshape(-1))


ABC = strings([b"a", "é".encode(), b""])
F3, I3 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 2, 3])
GOOD: list[tuple[str, TensorSpec, Any, Any]] = [
    ("str", WORD, ["a", "é", ""], ABC),
    ("bytes", WORD, [b"a", "é".encode(), b""], ABC),
    ("str and bytes", WORD, ["a", "é".encode(), ""], ABC),
    ("tuple", WORD, ("a", "é", ""), ABC),
    ("numpy U", WORD, np.array(["a", "é", ""]), ABC),
    ("numpy O", WORD, np.array(["a", "é".encode(), ""], dtype=object), ABC),
    ("numpy S", WORD, np.array([b"a", "é".encode(), b""]), ABC),
    ("numpy StringDType", WORD, np.array(["a", "é", ""], dtype=np.dtypes.StringDType()), ABC),
    ("numpy str scalars", WORD, [np.str_("a"), np.bytes_("é".encode()), ""], ABC),
    ("a generator", WORD, (text for text in ["a", "é", ""]), ABC),
    ("invalid UTF-8 as bytes", WORD, [b"\xff", b"a\0b"], strings([b"\xff", b"a\0b"])),
    ("NUL, ZWJ, NFD", WORD, ["a\0b\0", "👩\u200d💻", "e\u0301"], strings([b"a\0b\0", "👩\u200d💻".encode(), "e\u0301".encode()])),
    ("ten megabytes", WORD, ["x" * 10_000_000], strings([b"x" * 10_000_000])),
    ("(n,) for (n, 1)", WORD1, ["a", "é", ""], ABC.reshape(3, 1)),
    ("(n, 1) for (n, 1)", WORD1, [["a"], ["é"], [""]], ABC.reshape(3, 1)),
    ("(n, 1) for (n,)", WORD, [["a"], ["é"], [""]], ABC),
    ("numpy (n, 1) for (n,)", WORD, np.array([["a"], ["é"], [""]]), ABC),
    ("rows of str", WORDS2, [["a", "b"], ("c", b"d")], strings([b"a", b"b", b"c", b"d"], (2, 2))),
    ("rows of numpy", WORDS2, [np.array(["a", "b"]), np.array(["c", "d"])], strings([b"a", b"b", b"c", b"d"], (2, 2))),
    ("rows in an object array", WORDS2, np.array([["a", "b"], ["c", "d"]], dtype=object), strings([b"a", b"b", b"c", b"d"], (2, 2))),
    ("a free length", FREE, [["a", "b", "c"]], strings([b"a", b"b", b"c"], (1, 3))),
    ("no strings", WORD, [], strings([])),
    ("no rows of two", WORDS2, [], strings([], (0, 2))),
    ("no rows of a free length", FREE, [], strings([], (0, 0))),
    ("no numpy rows", WORDS2, np.empty((0,), dtype=object), strings([], (0, 2))),
    ("floats", SIZE, [1.0, 2, True], torch.tensor([1.0, 2.0, 1.0])),
    ("ints for floats", SIZE, [1, 2, 3], F3),
    ("numpy float64", SIZE, np.array([1.0, 2.0, 3.0]), F3),
    ("numpy float16", SIZE, np.array([1.0, 2.0, 3.0], dtype=np.float16), F3),
    ("numpy uint8", SIZE, np.array([1, 2, 3], dtype=np.uint8), F3),
    ("numpy object", SIZE, np.array([1, 2.0, np.float32(3)], dtype=object), F3),
    ("big-endian", SIZE, np.array([1.0, 2.0, 3.0], dtype=">f4"), F3),
    ("read backwards", SIZE, np.array([3.0, 2.0, 1.0], dtype=np.float32)[::-1], F3),
    ("every second", SIZE, np.array([1, 0, 2, 0, 3, 0], dtype=np.float32)[::2], F3),
    ("torch bfloat16", SIZE, torch.tensor([1, 2, 3], dtype=torch.bfloat16), F3),
    ("torch that is trained", SIZE, torch.tensor([1.0, 2.0, 3.0], requires_grad=True), F3),
    ("a list of tensors", SIZE, list(F3), F3),
    ("nan and inf", SIZE, [float("nan"), float("inf"), -0.0], torch.tensor([float("nan"), float("inf"), -0.0])),
    ("too large for float32", SIZE, [1e300, 1.0], torch.tensor([float("inf"), 1.0])),
    ("(n,) numbers for (n, 1)", SIZE1, [1, 2, 3], F3[:, None]),
    ("(n, 1) numbers for (n,)", SIZE, [[1.0], [2.0], [3.0]], F3),
    ("vectors", VECTOR, [[1, 2, 3]], F3[None]),
    ("a list of numpy vectors", VECTOR, [np.array([1, 2, 3])], F3[None]),
    ("vectors in an object array", VECTOR, np.array([[1, 2, 3], None], dtype=object)[:1], F3[None]),
    ("no vectors", VECTOR, [], torch.empty(0, 3)),
    ("no vectors in a list of none", VECTOR, np.empty((0, 0)), torch.empty(0, 3)),
    ("ints", IDS, [1, 2, 3], I3),
    ("int32 for int64", IDS, np.array([1, 2, 3], dtype=np.int32), I3),
    ("int64 for int32", IDS32, [1, 2, 3], I3.int()),
    ("uint64", IDS, np.array([1, 2, 3], dtype=np.uint64), I3),
    ("floats that are integers", IDS, [1.0, 2.0, 3.0], I3),
    ("floats as pandas gives them", IDS, np.array([1.0, 2.0, 3.0]), I3),
    ("ints beyond 2**53", IDS, [2**53 + 1, -(2**63)], torch.tensor([2**53 + 1, -(2**63)])),
    ("ints beyond 2**53 beside a float", IDS, np.array([2**53 + 1, 1], dtype=object), torch.tensor([2**53 + 1, 1])),
    ("bools for ints", IDS, [True, False], torch.tensor([1, 0])),
    ("bools", FLAG, [True, False], torch.tensor([True, False])),
    ("numpy bools", FLAG, np.array([True, False]), torch.tensor([True, False])),
    ("0 and 1 for bools", FLAG, [1, 0], torch.tensor([True, False])),
    ("a scalar", SCALAR, 2.5, torch.tensor(2.5)),
    ("a numpy scalar", SCALAR, np.float64(2.5), torch.tensor(2.5)),
    ("a text without rows", TensorSpec("t", "string", ()), "é", strings(["é".encode()], ())),
    ("any shape", TensorSpec("t", "float32", None), [[1.0, 2.0]], torch.tensor([[1.0, 2.0]])),
]  # fmt: skip


@pytest.mark.parametrize("spec, column, expected", [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_columns(spec: TensorSpec, column: Any, expected: Any) -> None:
    same(read_column(column, spec), expected)


def test_read_only_arrays_are_not_shared_with_torch() -> None:
    array = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    array.flags.writeable = False
    same(read_column(array, SIZE), F3)


BAD: list[tuple[str, TensorSpec, Any, str]] = [
    ("None in text", WORD, ["a", None], "'word', row 1: the value is None"),
    ("NaN in text", WORD, np.array(["a", float("nan")], dtype=object), "'word', row 1: the value is None"),
    ("an int in text", WORD, ["a", "b", 7], "'word', row 2: expected a string, found 7 (int)"),
    ("an int before the text", WORD, [7, "b"], "'word', row 0: expected a string, found 7"),
    ("a list in text", WORD, ["a", ["b"]], "'word', row 1: expected a string"),
    ("text among lists", WORDS2, [["a", "b"], "cd"], "'words', row 1: expected a list"),
    ("None inside a row", WORDS2, [["a", "b"], ["c", None]], "'words', row 1: the value is None"),
    ("None as a row", WORDS2, [["a", "b"], None], "'words', row 1: expected a list"),
    ("None inside a numpy row", WORDS2, np.array([["a", "b"], ["c", None]], dtype=object), "'words', row 1: the value is None"),
    ("a lone surrogate", WORD, ["a", "b\ud800"], "'word', row 1: the text holds a lone surrogate (U+D800)"),
    ("a lone surrogate inside a row", WORDS2, [["a", "b"], ["c", "\udfff"]], "'words', row 1: the text holds a lone surrogate"),
    ("ragged text", WORDS2, [["a", "b"], ["c"]], "'words', row 1: has the shape [1], but row 0 has [2]"),
    ("numbers for text", WORD, np.array([1, 2]), "'word' holds int64 values; the tower takes strings"),
    ("a tensor for text", WORD, torch.tensor([1]), "'word' is a tensor"),
    ("one text", WORD, "edit photos", "'word' is a single str: wrap it in a list"),
    ("one bytes", WORD, b"edit", "'word' is a single bytes: wrap it in a list"),
    ("text for numbers", SIZE, [1.0, "2"], "'size', row 1: expected float32, found '2' (str)"),
    ("numbers as text", SIZE, np.array(["1", "2"]), "'size', row 0: expected float32, found '1' (str)"),
    ("None among numbers", SIZE, [1.0, None], "'size', row 1: the value is None"),
    ("None among ints", IDS, [1, 2, None], "'id', row 2: the value is None"),
    ("None in a vector", VECTOR, [[1, 2, 3], [1, None, 3]], "'vector', row 1: the value is None"),
    ("None as a vector", VECTOR, [[1, 2, 3], None], "'vector', row 1: the value is None"),
    ("ragged vectors", VECTOR, [[1, 2, 3], [1, 2]], "'vector', row 1: has the shape [2], but row 0 has [3]"),
    ("short vectors", VECTOR, [[1, 2], [1, 2]], "'vector' has the shape [2, 2]; the tower takes [batch, 3]"),
    ("one vector", VECTOR, [1.0, 2.0, 3.0], "'vector' has the shape [3]; the tower takes [batch, 3]: wrap the row in a list"),
    ("too deep", SIZE, [[[1.0]]], "'size' has the shape [1, 1, 1]"),
    ("two columns for one", SIZE, [[1.0, 2.0]], "'size' has the shape [1, 2]; the tower takes [batch]"),
    ("a fraction for an int", IDS, [1, 2.5], "'id', row 1: 2.5 is not an integer; the tower takes int64"),
    ("NaN for an int", IDS, np.array([1.0, np.nan]), "'id', row 1: nan is not an integer"),
    ("inf for an int", IDS, [float("inf")], "'id', row 0: inf is not an integer"),
    ("a float beyond 2**53", IDS, [1e17], "'id', row 0: 1e+17 is a float too large"),
    ("a long for int32", IDS32, [1, 2**31], "'id', row 1: 2147483648 does not fit int32"),
    ("a numpy long for int32", IDS32, np.array([0, -(2**31) - 1]), "'id', row 1: -2147483649 does not fit int32"),
    ("a torch long for int32", IDS32, torch.tensor([0, 2**31]), "'id', row 1: 2147483648 does not fit int32"),
    ("a uint64 for int64", IDS, np.array([2**63], dtype=np.uint64), "'id', row 0: 9223372036854775808 does not fit int64"),
    ("beyond every float", SIZE, [1.5, 10**400], "'size', row 1: an integer of 1329 bits does not fit float32"),
    ("beyond every float and 4300 digits", SIZE, [-(10**5000), 1], "'size', row 0: an integer of 16610 bits does not fit float32"),
    ("beyond 4300 digits", IDS, [1, 10**5000], "'id', row 1: an integer of 16610 bits does not fit int64"),
    ("beyond 64 bits", IDS, [1, 2**70], "'id', row 1: 1180591620717411303424 does not fit int64"),
    ("complex for real", SIZE, [1j], "holds complex numbers"),
    ("2 for a bool", FLAG, [0, 2], "'flag', row 1: 2 is neither false nor true"),
    ("a date", SIZE, np.array(["2020-01-01"], dtype="M8[D]"), "'size', row 0: expected float32"),
    ("a mapping as a column", SIZE, {"a": 1}, "'size' is {'a': 1} (dict)"),
    ("nothing", SIZE, None, "'size' is None (NoneType)"),
    ("a set of objects", SIZE, [object()], "'size', row 0: expected float32"),
]  # fmt: skip


@pytest.mark.parametrize("spec, column, message", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_columns_that_do_not_fit(spec: TensorSpec, column: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_column(column, spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


READER = InputReader([WORD, SIZE, TensorSpec("release_year", "int64", ("batch", 1))])
COLUMNS = {"word": ["a", "b"], "size": [1.0, 2.0], "release_year": [1999, 2001]}


def test_columns_and_rows_are_the_same() -> None:
    rows = [{"word": "a", "size": 1.0, "release_year": 1999}, {"size": 2.0, "release_year": [2001], "word": "b"}]
    columns, count = READER(COLUMNS)
    by_rows, count2 = READER([{**rows[0], "release_year": [1999]}, rows[1]])
    assert count == count2 == 2 and list(columns) == ["word", "size", "release_year"]
    for name, value in columns.items():
        same(by_rows[name], value)
    assert READER([])[1] == 0 and READER([])[0]["release_year"].shape == (0, 1)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({k: v for k, v in COLUMNS.items() if k != "size"}, "feature 'size' is missing; the tower takes 'word' (string [batch])"),
        (COLUMNS | {"colour": [1]}, "unknown feature 'colour'; the tower takes"),
        ({"word": ["a"], "size": [1.0], "realease_year": [1]}, "unknown feature 'realease_year' (did you mean 'release_year'?)"),
        (COLUMNS | {"size": [1.0]}, "feature 'size' has 1 rows, but 'word' has 2"),
        ([{"word": "a", "size": 1.0, "release_year": 1}, {"word": "a", "size": 1.0}], "row 1: feature 'release_year' is missing"),
        ([{"word": "a", "size": 1.0, "release_year": 1}, None], "row 1 is None (NoneType), not a mapping"),
        ([{"word": "a", "size": 1.0, "release_year": 1}, {"word": "a", "size": None, "release_year": 1}], "'size', row 1: the value is None"),
        ([{"word": "a", "size": 1.0, "release_year": 1, "x": 2}], "row 0: unknown feature 'x'"),
        (["a", "b"], "give a mapping of columns or a list of rows"),
        ("text", "give a mapping of columns or a list of rows"),
        (None, "give a mapping of columns or a list of rows"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit(inputs: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        READER(inputs)
    assert message in str(caught.value)


def test_a_tower_with_one_input_takes_its_bare_column() -> None:
    reader = InputReader([WORD])
    for inputs in (["a", "b"], ("a", "b"), np.array(["a", "b"]), {"word": ["a", "b"]}, [{"word": "a"}, {"word": "b"}]):
        columns, count = reader(inputs)
        assert count == 2
        same(columns["word"], strings([b"a", b"b"]))


def test_inputs_without_rows_have_lengths_of_their_own() -> None:
    """The components of a sparse tensor, and scalars, as wide models have them."""
    specs = [TensorSpec("x/indices", "int64", (None, 2)), TensorSpec("x/values", "string", (None,)),
             TensorSpec("x/shape", "int64", (2,)), SCALAR]  # fmt: skip
    columns, rows = InputReader(specs)({"x/indices": [[0, 0]], "x/values": ["a"], "x/shape": [5, 1], "scale": 0.5})
    assert rows is None and columns["x/indices"].shape == (1, 2)
    with pytest.raises(InputError, match="has no rows"):
        InputReader(specs)([{"x/indices": [0, 0], "x/values": "a", "x/shape": 5, "scale": 0.5}])


def test_defaults_stand_in_for_what_is_left_out() -> None:
    reader = InputReader([WORD, SCALAR], {"scale": torch.tensor(3.0)})
    assert reader({"word": ["a"]})[0]["scale"] == 3.0
    assert reader({"word": ["a"], "scale": 4.0})[0]["scale"] == 4.0
    with pytest.raises(InputError, match="'word' is missing"):
        reader({"scale": 4.0})


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(COLUMNS)
    columns, count = READER(frame)
    assert count == 2
    for name, value in READER(COLUMNS)[0].items():
        same(columns[name], value)
    same(read_column(pandas.Series(["a", "é", ""], dtype="string"), WORD), ABC)
    for dtype in ("string[pyarrow]", "string[python]", object):
        same(read_column(pandas.Series(["a", "é", ""], dtype=dtype, index=[3, 1, 2]), WORD), ABC)
    same(read_column(pandas.Series(["a", "é", ""], dtype="category"), WORD), ABC)
    same(read_column(pandas.Series([[1, 2, 3]]), VECTOR), F3[None])
    same(read_column(pandas.Series([1, 2, 3], dtype="Int64"), IDS), I3)
    same(read_column(pandas.Series([1.0, 2.0, 3.0], index=[5, 6, 7]), SIZE), F3)
    for values, spec in ((pandas.Series(["a", None]), WORD), (pandas.Series([1, None], dtype="Int64"), IDS),
                         (pandas.Series(["a", None], dtype="string"), WORD)):  # fmt: skip
        with pytest.raises(InputError, match="row 1: the value is None"):
            read_column(values, spec)
    with pytest.raises(InputError, match="row 1: nan is not an integer"):
        read_column(pandas.Series([1, None]), IDS)


def test_arrow() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    expected = READER(COLUMNS)[0]
    table = pyarrow.table(COLUMNS)
    for inputs in (table, table.to_batches()[0]):
        columns, count = READER(inputs)
        assert count == 2
        for name, value in expected.items():
            same(columns[name], value)
    same(read_column(pyarrow.array(["a", "é", ""]), WORD), ABC)
    same(read_column(pyarrow.array([b"a", "é".encode(), b""]), WORD), ABC)
    same(read_column(pyarrow.array(["a", "é", ""], pyarrow.large_string()), WORD), ABC)
    same(read_column(pyarrow.chunked_array([["a"], ["é", ""]]), WORD), ABC)
    same(read_column(pyarrow.chunked_array([], pyarrow.string()), WORD), ABC[:0])
    same(read_column(pyarrow.array(["x", "a", "é", "", "y"])[1:4], WORD), ABC)
    same(read_column(pyarrow.array(["a", "é", ""]).dictionary_encode(), WORD), ABC)
    same(read_column(pyarrow.array([[1.0, 2.0, 3.0]]), VECTOR), F3[None])
    same(read_column(pyarrow.chunked_array([[1], [2, 3]]), IDS), I3)
    same(read_column(pyarrow.array([True, False]), FLAG), torch.tensor([True, False]))
    for values, spec in (
        (["a", None], WORD),
        ([1, None], IDS),
        ([1.0, None], SIZE),
        ([[1.0, 2.0, 3.0], [1.0, None, 2.0]], VECTOR),
    ):
        with pytest.raises(InputError, match="row 1: the value is None"):
            read_column(pyarrow.array(values), spec)
