"""The fused native pass over texts is bit-exact with the single ops, for any bytes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_towers.errors import InputError
from torch_towers.kernels import native
from torch_towers.layers import text_pipeline
from torch_towers.layers.text import TextVectorization
from torch_towers.layers.text_pipeline import Change, pipeline_of
from torch_towers.ops import strings as string_ops
from torch_towers.ops.regex import regex_replace
from torch_towers.ops.strings import strings

pytestmark = pytest.mark.skipif(native.core is None, reason="the native core was not built (no compiler)")

PUNCTUATION = rb"[!\"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']"
SUFFIX = rb"\b([a-z]{3,}?)(?:ings?|ers?|ors?|ions?|ed|es|e|s|y|ies)\b"
TOKENS = [
    b"a",
    b"ab",
    b"about",
    b"edit",
    b"text",
    b"x-y",
    "\u00e9".encode(),
    b"\xff",
    b"a\0b",
    b"1",
    b"",
    b"#",
    b"w",
    b"z" * 300,
]
PARTS = [*TOKENS, *(bytes([byte]) for byte in b" \t\n\v\f\r\x1c\x85\xa0!.,-_'#+"), b"  ", b"Editors", b"texting", b"ies", b"Abouts",
         "\u00c9\u0130\u03a3".encode(), "\u00a0".encode(), "\u2028\u4f60".encode(), b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
         b"\xc0\x80", b"\xf0\x9f\x98\x80", b"\x80", b"q" * 255, b"Q" * 256]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=3)), max_size=10).map(b"".join)
VOCABULARY = strings(TOKENS, (-1,))


def replace(pattern: bytes, rewrite: bytes, replace_global: bool = True) -> Change:
    return "regex_replace", {"pattern": pattern, "rewrite": rewrite, "replace_global": replace_global}


LOWER, UPPER, STRIP = ("lower", {"encoding": ""}), ("upper", {"encoding": ""}), ("strip", {})
LOWER_UTF8 = ("lower", {"encoding": "utf-8"})
ABOUT = ("string_join", {"before": b"About ", "after": b""})
AROUND = ("string_join", {"before": b"a\t", "after": b"\nEdits a."})
CHAINS: list[list[Change]] = [
    [LOWER, replace(rb"[^a-z0-9+#]+", b" "), replace(SUFFIX, rb"\1"), ABOUT],
    [replace(SUFFIX, rb"\1")],
    [LOWER, replace(PUNCTUATION, b"")],
    [replace(rb"[^a-z ]", b" "), LOWER],
    [replace(rb"[^a-z]+", b""), UPPER],
    [replace(b"-", b" "), STRIP, LOWER_UTF8],
    [replace(b"[ab]", b"x"), AROUND, LOWER, replace(PUNCTUATION, b" ")],
    [ABOUT, replace(SUFFIX, rb"\1"), AROUND, LOWER, replace(rb"[#1]", b"-"), replace(rb"\S+", rb"\0 \0")],
    [replace(rb"(\w)-(\w)", rb"\1 \2"), replace(rb"\w{2,3}", rb"<\0>"), STRIP],
    [replace(rb"a[b.]c?", b"")],
    [replace(rb"\s", b"_"), replace(b"_", b" ")],
    [LOWER_UTF8, replace(rb"[^a-z]+", b" ")],
    [replace(rb"[0-9]+", b"#")],
    [STRIP, ABOUT, LOWER_UTF8],
    [replace(rb"[ab]", b"x y")],
    [replace(rb"[ab]", b"\xff"), UPPER],
]
LAYERS: list[dict[str, Any]] = [
    {},
    {"lowercase": "ascii", "replace": ((PUNCTUATION, b""),)},
    {"lowercase": "utf-8"},
    {"oov_buckets": 3},
]
REFUSED: list[list[Change]] = [
    [replace(rb"\s+", b"")] * 2 + [ABOUT, replace(rb"\s", b"")],  # white space that stood apart is gone
    [("string_join", {"before": b"pre", "after": b""})],
    [("string_join", {"before": b"", "after": b"post"})],
    [replace(rb"[a-b!-.]+", b"x")],  # a run becomes one byte of a word
    [replace(rb"[^a]", b"x")],  # a character becomes one byte of a word
    [replace(rb"[!-.]+", b" "), replace(rb"[ ]", b"_")],
    [replace(rb"[!-.]", b"xy")],
    [replace(rb"[!-.]", b"\xff")],
    [("string_join", {"before": b"\xc3\x89 ", "after": b""}), LOWER_UTF8],
    [("string_join", {"before": b"", "after": b" \0"}), LOWER_UTF8],
    [replace(rb"a", b" ", False)],
    [replace(rb"a.", b"b")],
    [replace(SUFFIX, rb"\1"), LOWER_UTF8],
    [("reverse", {})],
]


def layer_of(length: int = 6, **args: Any) -> TextVectorization:
    standard: dict[str, Any] = {"mask_token": b"", "mask_id": 0, "output_mode": "int", "length": length, "pad_id": 0}
    return TextVectorization(VOCABULARY, 5, 1, **{**standard, **args})


def one_by_one(changes: list[Change], layer: TextVectorization, texts: list[bytes]) -> np.ndarray[Any, Any]:
    """The ops as a graph runs them, and the layer without the core."""
    x = strings(texts, (-1,))
    for name, attrs in changes:
        if name == "string_join":
            x = string_ops.string_join(strings([attrs["before"]], ()), x, strings([attrs["after"]], ()))
        elif name == "regex_replace":
            x = regex_replace(x, **attrs)
        else:
            x = getattr(string_ops, name)(x, **attrs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "core", None)
        return layer(x).numpy()


@pytest.mark.parametrize("args", LAYERS)
@pytest.mark.parametrize("changes", [[], *CHAINS])
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5), length=st.integers(0, 9))
def test_equals_the_ops_one_by_one(
    changes: list[Change], args: dict[str, Any], texts: list[bytes], length: int
) -> None:
    layer = layer_of(length, **args)
    pipeline = pipeline_of(changes, layer)
    if pipeline is None:  # only for a layer that lowers as Unicode does, behind words that were changed one by one
        assert args.get("lowercase") == "utf-8"
        return
    expected = one_by_one(changes, layer, texts)
    x = strings(texts, (-1,))
    for given_ in (x, x, x.reshape(-1, 1), np.repeat(x, 2)[::2]):  # the second time the words are known
        assert pipeline(given_).numpy().tolist() == expected.tolist()


GRAMS = strings([b"a", b"a a", b"ab a", b"a ab a", b"aa", b"a-ab", b"#", b"w w w", b"", b"a w"], (-1,))
OTHER_LAYERS: list[dict[str, Any]] = [
    {"output_mode": "count", "size": 9},
    {"output_mode": "tf_idf", "size": 30, "dtype": "float32", "oov_buckets": 3},
    {"output_mode": "multi_hot", "size": 7, "lowercase": "utf-8", "replace": ((PUNCTUATION, b""),)},
    {"output_mode": "multi_hot", "size": 0, "dtype": "float32"},
    {"ngrams": (1, 2)},
    {"ngrams": (3, 1, 1), "lowercase": "ascii"},
    {"ngrams": (2,), "ngram_separator": b"", "output_mode": "count", "size": 12, "dtype": "float32"},
    {"ngrams": (1, 3), "ngram_separator": b" and ", "output_mode": "multi_hot", "size": 12},
    {"ngrams": (40,), "replace": ((rb"[#1]", b"-"),)},
]
WORDS = st.lists(
    st.sampled_from([b"a", b"ab", b"A", b"#", b"w", b"z" * 255, b"z" * 256, b"1!", "\u00e9".encode(), b"\xff"]),
    max_size=9,
)


@pytest.mark.parametrize("args", OTHER_LAYERS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.one_of(WORDS.map(b" ".join), TEXTS), max_size=5), length=st.sampled_from([0, 1, 6]))
def test_counts_and_ngrams_equal_the_ops(args: dict[str, Any], texts: list[bytes], length: int) -> None:
    standard: dict[str, Any] = {"mask_token": b"", "mask_id": 0, "length": 0 if "output_mode" in args else length}
    layer = TextVectorization(GRAMS, 2, 1, **{**standard, **args})
    chains: list[list[Change]] = [[], [STRIP, replace(rb"[_.]", b"")]]
    for changes in chains:
        pipeline = pipeline_of(changes, layer)
        assert pipeline is not None
        expected = one_by_one(changes, layer, texts)
        for _ in range(2):  # the second time the words are known
            found = pipeline(strings(texts, (-1,))).numpy()
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert found.tolist() == expected.tolist()


def test_negative_ids_are_not_counted() -> None:
    layer = TextVectorization(GRAMS, -3, 5, output_mode="count", size=9)
    assert layer(strings([b"w w", b"x"], (2,))).shape == (2, 9)
    with pytest.raises(InputError, match="non-negative"):
        layer(strings([b"x", b"a"], (2,)))


@given(
    st.lists(
        st.one_of(st.binary(max_size=6), st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass")))
    )
)
def test_what_is_valid_utf8(parts: list[bytes]) -> None:
    """A text that is not valid UTF-8 is left to Python, a valid one never is."""
    text = b"".join(parts)
    table = bytes(256) + bytes([1] * 128 + [1 | 8] * 128)
    out = np.empty((1, 1), np.int64)
    left = native.core.text_ids(native.core.Words(0, 0), table, b"", b"", 0, 0, strings([text], (1,)), out)
    try:
        text.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert (left is None) == valid


@pytest.mark.parametrize("changes", REFUSED)
def test_what_has_no_fast_way(changes: list[Change]) -> None:
    assert pipeline_of(changes, layer_of()) is None


@pytest.mark.parametrize(
    "args",
    [
        {"output_mode": "count", "dtype": "int32"},
        {"ngrams": (1, 2), "oov_buckets": 2},
        {"ngrams": (0,)},
        {"ngrams": (1,) * 17},
        {"ngrams": (2,), "replace": ((SUFFIX, rb"\1"),)},
        {"separator": b","},
        {"replace": ((b"a.", b""),)},
    ],
)
def test_layers_that_have_no_fast_way(args: dict[str, Any]) -> None:
    assert pipeline_of([LOWER], layer_of(**{"size": 30, **args})) is None


@pytest.mark.parametrize("length", [6, 0])
def test_plain_texts_never_reach_python(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above compares two ways. Words that were worked out once are not worked out again."""
    texts = [b"About Editors, texting", "na\u00efve edits".encode(), b"", b"x" * 200]
    layer = layer_of(length)
    changes = CHAINS[0]
    pipeline: Any = pipeline_of(changes, layer)
    expected = one_by_one(changes, layer, texts)
    monkeypatch.setattr(layer, "without_core", None)
    assert pipeline(strings(texts, (-1,))).numpy().tolist() == expected.tolist()
    monkeypatch.setattr(pipeline, "_learn", None)
    assert pipeline(strings(texts[::-1], (-1,))).numpy().tolist() == expected[::-1].tolist()


@pytest.mark.parametrize("length", [6, 0])
@pytest.mark.parametrize("bounds", [(3, 1 << 20), (1 << 10, 200), (0, 0), (2, 40)])
def test_what_is_remembered_is_bounded(bounds: tuple[int, int], length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_pipeline, "_MOST", bounds[0])
    monkeypatch.setattr(text_pipeline, "_ROOM", bounds[1])
    layer = layer_of(length, oov_buckets=100)
    pipeline: Any = pipeline_of([LOWER], layer)
    texts = [b"w%d W%d a" % (i, i * 7 % 13) + b" a" * (i == 7) for i in range(40)]
    for _ in range(2):
        assert pipeline(strings(texts, (-1,))).numpy().tolist() == one_by_one([LOWER], layer, texts).tolist()
        assert len(pipeline._words) <= bounds[0]


def test_errors_are_the_layers() -> None:
    layer = layer_of()
    with pytest.raises(InputError, match=r"texts have shape \[2, 2\], expected one text per row"):
        layer(strings([b"a"] * 4, (2, 2)))
    assert layer(strings([], (0,))).shape == (0, 6)
    assert layer(strings([], (0, 1))).shape == (0, 6)
    assert layer_of(0)(strings([], (0,))).shape == (0, 0)
    assert layer_of(0)(strings([b"", b" "], (2,))).shape == (2, 0)


def test_threads_share_a_pipeline() -> None:
    """Batches so large that the GIL is let go, while the others learn and forget."""
    layer = layer_of(oov_buckets=1000)
    pipeline: Any = pipeline_of(CHAINS[0], layer)
    batches = [[b"Editing w%d the x%ds" % (i * k % 977, i % (k + 2)) for i in range(600)] for k in range(1, 9)]
    expected = [one_by_one(CHAINS[0], layer, texts) for texts in batches]
    wrong: list[int] = []

    def work(which: int) -> None:
        for _ in range(5):
            for k, texts in enumerate(batches[which:] + batches[:which]):
                if pipeline(strings(texts, (-1,))).numpy().tolist() != expected[(k + which) % len(batches)].tolist():
                    wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_words() -> None:
    words = native.core.Words(3, 200)
    assert words.add(b"a", [1]) and words.add(b"a", [2]) and words.add(b"", [-3]) and words.add(b"ab" * 20, [4, 5])
    assert len(words) == 3 and not words.add(b"b", [1])
    out = np.empty(4, np.int64)
    assert native.core.find(words, strings([b"ab" * 20, b"", b"b", b"a"], (4,)), 7, out) is None
    assert out.tolist() == [4, -3, 7, 2]
    assert native.core.find(words, strings([b"b", b"", b"c", b"a"], (4,)), None, out) == [0, 2]
    twice = native.core.Words(3, 200)
    assert not twice.extend(strings([b"a", b"b", b"a"], (3,)), 0)
    assert not native.core.Words(3, 24).extend(strings([b"a", b"b"], (2,)), 0)


@given(
    st.dictionaries(st.binary(max_size=40), st.integers(-(2**63), 2**63 - 1), max_size=60),
    st.lists(st.binary(max_size=40)),
)
def test_words_are_a_dictionary(known: dict[bytes, int], others: list[bytes]) -> None:
    words = native.core.Words(len(known), sum(map(len, known)) + 24 * len(known))
    assert all(words.add(key, [value]) for key, value in known.items())
    keys = [*known, *others]
    out = np.empty(len(keys), np.int64)
    assert native.core.find(words, strings(keys, (-1,)), 9, out) is None
    assert out.tolist() == [known.get(key, 9) for key in keys]
