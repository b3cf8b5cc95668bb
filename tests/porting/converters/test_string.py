"""Every string op against TensorFlow, bit-exact."""

from __future__ import annotations

import numpy as np
import pytest

from tests.witness import Case, as_array, case, check_case

TEXTS = as_array(
    ["", "a", "Edit  Photos\t", " \n x,y;;z ", "ÉCOLE \u00a0b\u3000c\x1cd", "ΑΣ ΑΣΑ Σ", "İstanbul ß ŉ ﬁ", "a_b-1,000.5!?“”",
     b"\xff\xfeA\xc3", b"ab\0C D", b"\xe2\x82", "日本 語", "x" * 200]
)  # fmt: skip
GRID = TEXTS[:12].reshape(3, 2, 2)
PUNCTUATION = r'[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']'
TOKENS = as_array(["a", "b", "c", "d", "", "é"])


def _replace(pattern: str, rewrite: str, *, everywhere: bool = True) -> Case:
    attrs = {"pattern": pattern, "rewrite": rewrite, "replace_global": everywhere}
    return case("StaticRegexReplace", input=TEXTS, attrs=attrs)


def _ngrams(widths: list[int], splits: object = (0, 2, 3, 3, 6), **attrs: object) -> Case:
    given = {
        "separator": " ",
        "ngram_widths": widths,
        "left_pad": "",
        "right_pad": "",
        "pad_width": 0,
        "preserve_short_sequences": False,
    }
    return case(
        "StringNGrams",
        data=TOKENS,
        data_splits=np.array(splits, attrs.pop("dtype", "int64")),
        attrs={**given, **attrs},
        batched=False,
    )


def _as_string(dtype: str, **attrs: object) -> Case:
    if dtype == "bool":
        return case("AsString", input=np.array([True, False]), attrs=attrs)
    floats = [1.5, -0.0, np.nan, np.inf, -np.inf, 1e-5, 123456789.0, 0.1, -7.25, 1e30, 0.0]
    values = floats if dtype.startswith(("float", "complex")) else [0, 5, 100]
    with np.errstate(over="ignore"):
        array = np.array(values).astype(dtype)
    return case(
        "AsString",
        input=np.concatenate([array, -array]) if dtype.startswith(("float", "int")) else array,
        attrs=attrs,
        label=f"{dtype} {attrs}",
    )


def _numbers(dtype: str, *texts: str) -> Case:
    return case(
        "StringToNumber",
        string_tensor=as_array(list(texts)),
        attrs={"out_type": getattr(np, dtype)},
        label=f"{dtype} {texts}",
    )


def _format(*values: object, template: str = "<%s>", placeholder: str = "%s", summarize: int = 3) -> Case:
    attrs = {"template": template, "placeholder": placeholder, "summarize": summarize}
    return case("StringFormat", inputs=tuple(np.asarray(value) for value in values), attrs=attrs, free=False,
                label=f"{[str(value)[:30] for value in values]} {summarize}")  # fmt: skip


FILLS: list[dict[str, object]] = [{}] + [{"width": 14, "fill": fill} for fill in ("", "0", "-", " ", "+", "#")]
CASES: list[Case] = [
    *[case(op, input=x, attrs={"encoding": encoding}) for op in ("StringLower", "StringUpper") for encoding in ("", "utf-8") for x in (TEXTS, GRID)],
    case("StringStrip", input=TEXTS),
    case("StringStrip", input=as_array(b" x ")),
    *[case("StringSplitV2", "sep", input=TEXTS, sep=sep, attrs={"maxsplit": n}) for sep in ("", " ", "a", ";;") for n in (-1, 0, 1, 2)],
    case("StringSplitV2", "sep", input=TEXTS[:0], sep=""),
    case("StringSplitV2", "sep", input=TEXTS[:1], sep=""),
    *[case("StringSplit", "delimiter", input=TEXTS, delimiter=d, attrs={"skip_empty": skip}) for d in ("", ",", " ,;]^-") for skip in (True, False)],
    case("StringSplit", "delimiter", input=TEXTS[:0], delimiter=" "),
    case("StringJoin", inputs=(TEXTS, TEXTS[::-1]), attrs={"separator": "-"}),
    case("StringJoin", inputs=(TEXTS, as_array(b"/"), TEXTS)),
    case("StringJoin", inputs=(as_array(b"p"), as_array(b"q")), attrs={"separator": "é"}),
    case("StringJoin", inputs=(GRID,)),
    *[case("ReduceJoin", "reduction_indices", inputs=GRID, reduction_indices=np.array(axes, np.int32), attrs={"keep_dims": keep, "separator": "+"})
      for axes in ([], [0], -1, [2, 0], [0, 1], [0, 1, 2], [-1, -2]) for keep in (False, True)],
    case("ReduceJoin", "reduction_indices", inputs=GRID[:, :, :0], reduction_indices=np.array([2], np.int32)),
    case("ReduceJoin", "reduction_indices", inputs=as_array(b"x"), reduction_indices=np.array([], np.int32)),
    case("UnsortedSegmentJoin", "num_segments", inputs=GRID, segment_ids=np.array([2, 0, 2], np.int32), num_segments=4, attrs={"separator": "-"}),
    case("UnsortedSegmentJoin", "num_segments", inputs=GRID[0], segment_ids=np.array([[2, 0], [2, 1]]), num_segments=np.int64(4), batched=False),
    *[_ngrams(widths, **attrs) for widths in ([1], [2], [1, 2], [3, 1])
      for attrs in ({}, {"left_pad": "<", "right_pad": ">", "pad_width": -1}, {"left_pad": "<", "right_pad": ">", "pad_width": 1, "separator": ""})],
    _ngrams([3], preserve_short_sequences=True),
    _ngrams([5, 4], preserve_short_sequences=True, pad_width=1, left_pad="l", right_pad="r", dtype="int32"),
    _ngrams([], (0, 6), preserve_short_sequences=True),
    case("StringNGrams", data=TOKENS[:0], data_splits=np.array([0, 0]), batched=False, attrs={
        "separator": "", "ngram_widths": [2], "left_pad": "a", "right_pad": "b", "pad_width": 1, "preserve_short_sequences": True}),
    *[_replace(pattern, rewrite) for pattern, rewrite in [
        (PUNCTUATION, ""), (PUNCTUATION, " "), (PUNCTUATION, "<>"), (PUNCTUATION, r"\0\0"), (r"\s+", " "), (r"[^\w\s]", ""), (r"(?i)a|É", "<\\0>"),
        (r"\d+", "#"), ("x*", "-"), ("", "."), (r"\b", "|"), ("^|$", "@"), (".", "o"), (r"(\w)(\W)?", r"\2\1\\"), ("[a-c]", "Z"), (r"[\s\d]", "_"),
        (r"\p{Lu}", "U"), ("a", r"\1"), ("a", r"\x"), ("(a)|b", r"[\1"), ("[[:punct:]]", ""), (r"[\D]", "."), ("é?", "!"), (r"\C", "c"), ("(?s).*", "all")]],
    *[_replace(pattern, rewrite, everywhere=False) for pattern, rewrite in [(PUNCTUATION, ""), (r"(\w+)", r"<\1>"), ("x*", "-"), ("a", r"\x"), ("a", r"\2")]],
    case("RegexReplace", "pattern", "rewrite", input=GRID, pattern="[aeiou ]", rewrite="", attrs={"replace_global": True}),
    case("RegexReplace", "pattern", "rewrite", input=GRID, pattern="(.)", rewrite="\\1\\1", attrs={"replace_global": False}),
    *[case("StaticRegexFullMatch", input=TEXTS, attrs={"pattern": pattern}) for pattern in ("a", ".*", r"(?s).*", "", r"\w+|.*a.*", r"[^a]*")],
    case("RegexFullMatch", "pattern", input=GRID, pattern=r".*[a-z ].*"),
    *[case("Substr", "pos", "len", input=TEXTS[2:8], pos=pos, len=length, attrs={"unit": unit})
      for pos, length in [(0, 3), (-2, 5), (3, 100), (1, -1), (-3, 1), (2, 0)] for unit in ("BYTE", "UTF8_CHAR")],
    case("Substr", input=TEXTS[2:5], pos=np.array([0, 1, -2]), len=np.array([1, 9, 1])),
    case("Substr", input=GRID[1:, :, 0], pos=np.array([[0], [1]]), len=np.array([[1], [2]]), attrs={"unit": "UTF8_CHAR"}),
    case("Substr", "pos", "len", input=TEXTS[2:5].reshape(3, 1), pos=np.array([0, 1], np.int32), len=np.array([1, 2], np.int32)),
    case("Substr", "pos", "len", input=TEXTS[:0], pos=1, len=1),
    *[case("StringLength", input=x, attrs={"unit": unit}) for unit in ("BYTE", "UTF8_CHAR") for x in (TEXTS, GRID)],
    *[_as_string(dtype, **fill) for dtype in ("float32", "float64", "float16", "int32", "uint8", "uint64", "int64", "bool", "complex64") for fill in FILLS],
    *[_as_string(dtype, **attrs) for dtype in ("float32", "float64", "complex128")
      for attrs in ({"precision": 0}, {"precision": 3}, {"scientific": True}, {"shortest": True}, {"shortest": True, "precision": 2, "width": 9, "fill": "0"},
                    {"scientific": True, "precision": 1, "width": 12, "fill": "#"}, {"precision": 0, "width": 4, "fill": "#"}, {"width": 0})],
    *[case("AsString", input=TEXTS, attrs=fill) for fill in FILLS],
    *[_numbers(dtype, "1", "+1", " 1 ", "\t1\n", "1\x0b", "007", "2147483647", "0" * 5000 + "7") for dtype in ("float32", "float64", "int32", "int64", "uint32", "uint64")],
    *[_numbers(dtype, "-1", "-0", "1.5", ".5", "5.", "1e3", "0x1F", "-0X1f", "0x1.8p1", "0x.8", "inf", "-Inf", "+INFINITY", "nan", "NaN(1)", "1e39", "1e-46", "1e400",
              "1e-42", "1e99999999999", "1" * 40, "16777217.0000000001", "16777217", "16777216.9999999999", "0x1000001.00000000001", "3.40282356779733661637539395458142568448e38",
              "3.4028235677973366e38", "7.0064923216240853546186479164495e-46", "7.0064923216240853546186479164496e-46", "-.5e-3", "1.e5") for dtype in ("float32", "float64")],
    _numbers("int64", "9223372036854775807", "-9223372036854775808"), _numbers("uint64", "18446744073709551615"), _numbers("int32", "-2147483648"), _numbers("uint32", "4294967295"),
    *[_format(value, summarize=n) for n in (-1, 0, 1, 2, 3) for value in (
        np.float32([1.5, 2, 1 / 3, 1e20, 123456789, 1e6, -0.0, np.inf, np.nan]), np.arange(42).reshape(6, 7), np.zeros((3, 4, 2), np.int8), np.float64([0.1, 1 / 3, 1e300]), 7,
        np.float16([0.1, 65504]), np.zeros((2, 0)), np.array([], np.int32), np.array([True, False, True, True, False, True, True]), np.zeros((7, 2), bool))],
    *[_format(as_array(['a"b', "é", "\n\\'\t\r", b"\xff\0\x7f\x1f", "", "e", "f"]), summarize=n) for n in (-1, 1, 3)],
    _format(as_array(b"{}"), 2.0, template="{} and {}.", placeholder="{}"),
    *[case("EncodeBase64", input=TEXTS, attrs={"pad": pad}) for pad in (False, True)],
    case("DecodeBase64", input=as_array(["", "YQ", "YQ==", "YR==", "YWI", "YWI=", "YWJj", "_-8", "__4_Pg"])),
    *[case("StringToHashBucketFast", input=x, attrs={"num_buckets": n}) for x, n in [(TEXTS, 1000), (GRID, 7), (TEXTS, 2**63 - 1), (TEXTS, 1)]],
    *[case("StringToHashBucketStrong", input=TEXTS, attrs={"num_buckets": n, "key": key}) for n, key in [(1000, [133, 137]), (2**63 - 1, [-1, 2**62]), (3, [0, 0])]],
    *[case("StringToHashBucket", string_tensor=TEXTS, attrs={"num_buckets": n}) for n in (10, 2**63 - 1)],
    *[case("Fingerprint", "method", data=data, method="farmhash64") for data in (TEXTS, GRID, np.arange(6).reshape(2, 3), np.float32([1, 2]), np.array([[True], [False]]), GRID[:, :1, :1])],
]  # fmt: skip


@pytest.mark.parametrize("row", CASES, ids=str)
def test_equals_tensorflow(row: Case) -> None:
    check_case(row)
