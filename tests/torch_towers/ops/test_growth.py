"""No host op loops in Python over the rows of a batch: the bytecodes of a call do not grow with the rows.

Instructions are counted, not seconds: the bytecodes of a call with few rows and with many, traced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch_towers import layers as _layers  # noqa: F401  (fills MODULES)
from torch_towers import ops as _ops  # noqa: F401  (fills OPS)
from torch_towers.graph.registry import OPS
from torch_towers.kernels import native
from torch_towers.layers.buckets import Hashing
from torch_towers.layers.lookups import IntegerLookup, StringLookup
from torch_towers.layers.tables import LookupTable
from torch_towers.layers.text import TextVectorization
from torch_towers.ops.strings import strings

pytestmark = pytest.mark.skipif(native.core is None, reason="the native core was not built (no compiler)")

FEW, MANY = 16, 144
FREE = 1.0  # instructions for each row more that are not a loop over rows: tables that double while they grow
Calls = dict[str, Callable[[int], Callable[[], Any]]]


def texts(n: int) -> Any:
    return strings([b"Some Words, and number %d" % i for i in range(n)], (n,))


def numbers(n: int) -> Any:
    return torch.arange(n)


def splits(n: int, width: int = 2) -> Any:
    return torch.arange(0, width * n + 1, width)


def of_texts(name: str, **attrs: Any) -> Callable[[int], Callable[[], Any]]:
    def make(n: int) -> Callable[[], Any]:
        x = texts(n)
        return lambda: OPS[name].function(x, **attrs)

    return make


def call(name: str, *operands: Callable[[int], Any], **attrs: Any) -> Callable[[int], Callable[[], Any]]:
    def make(n: int) -> Callable[[], Any]:
        given = [operand(n) for operand in operands]
        return lambda: OPS[name].function(*given, **attrs)

    return make


def module(made: Any, *operands: Callable[[int], Any]) -> Callable[[int], Callable[[], Any]]:
    def make(n: int) -> Callable[[], Any]:
        given = [operand(n) for operand in operands]
        return lambda: made(*given)

    return make


WORDS = strings([b"some", b"words", b"and"], (3,))


def pairs(n: int) -> Any:
    return torch.stack([torch.arange(n), torch.zeros(n, dtype=torch.int64)], 1)


def cross(n: int) -> tuple[Any, ...]:
    return (pairs(n),), (texts(n),), (torch.tensor([n, 1]),), (torch.arange(n)[:, None],)


FLAT: Calls = {
    "hash_bucket_fast": of_texts("hash_bucket_fast", num_buckets=9),
    "hash_bucket_legacy": of_texts("hash_bucket_legacy", num_buckets=9),
    "case_fold_utf8": of_texts("case_fold_utf8"),
    "normalize_utf8": of_texts("normalize_utf8", form="NFKD"),
    "transcode": of_texts("transcode", input_encoding="UTF-8", output_encoding="UTF-16-BE"),
    "segment_join": call("segment_join", texts, numbers, lambda n: n),
    "byte_split": of_texts("byte_split"),
    "hash_bucket_strong": of_texts("hash_bucket_strong", num_buckets=9, key=(1, 2)),
    "lower": of_texts("lower"), "lower utf-8": of_texts("lower", encoding="utf-8"), "upper": of_texts("upper"),
    "upper utf-8": of_texts("upper", encoding="utf-8"), "strip": of_texts("strip"), "split": of_texts("split"),
    "split at a text": of_texts("split", sep=b", "), "split_at_any": of_texts("split_at_any", delimiters=b" ,"),
    "split into bytes": of_texts("split_at_any", delimiters=b""), "string_join": call("string_join", texts, texts, separator=b" "),
    "reduce_join": call("reduce_join", lambda n: texts(n).reshape(-1, 2), axes=(1,)),
    "ngrams": call("ngrams", lambda n: texts(2 * n), splits, separator=b" ", widths=(1, 2)),
    "substr": call("substr", texts, lambda n: torch.tensor(1), lambda n: torch.tensor(2)),
    "substr of characters": call("substr", texts, lambda n: torch.full((n,), -2), lambda n: torch.full((n,), 2), unit="UTF8_CHAR"),
    "string_length": of_texts("string_length"), "as_string": call("as_string", numbers),
    "to_number": call("to_number", lambda n: strings([b"%d" % i for i in range(n)], (n,)), dtype="int64"),
    "to_number of floats": call("to_number", lambda n: strings([b"%d.5" % i for i in range(n)], (n,)), dtype="float32"),
    "unicode_decode": of_texts("unicode_decode", input_encoding="UTF-8"),
    "unicode_encode": call("unicode_encode", lambda n: torch.arange(2 * n, dtype=torch.int32), splits, output_encoding="UTF-8"),
    "unicode_script": call("unicode_script", lambda n: torch.arange(n, dtype=torch.int32)),
    "regex_replace": of_texts("regex_replace", pattern=rb"[!-/:-@]", rewrite=b""),
    "regex_split_with_offsets": of_texts("regex_split_with_offsets", delimiter=rb"(\s+)", keep=b""),
    "sparse_cross_keyed": call("sparse_cross_keyed", *(lambda n, i=i: cross(n)[i] for i in range(4)), buckets=9, hash_key=1),
    "Hashing": module(Hashing(9), texts), "Hashing of integers": module(Hashing(9, (1, 2)), numbers),
    "StringLookup": module(StringLookup(WORDS, 2, 1), texts), "StringLookup with buckets": module(StringLookup(WORDS, 2, 1, 3), texts),
    "IntegerLookup": module(IntegerLookup(torch.tensor([3, 5]), 2, 1, 3), numbers),
    "LookupTable": module(LookupTable(WORDS, torch.arange(3)), texts, lambda n: torch.tensor(-1)),
    "TextVectorization": module(TextVectorization(WORDS, 2, 1, 0, None, 0, "ascii", ((rb"[!-/:-@]", b""),)), texts),
    "TextVectorization of n-grams": module(TextVectorization(WORDS, 2, 1, lowercase="utf-8", ngrams=(1, 2)), texts),
    "TextVectorization counted": module(TextVectorization(WORDS, 2, 1, output_mode="count", size=5), texts),
}  # fmt: skip

LOOPS: Calls = {
    "regex_full_match": of_texts("regex_full_match", pattern=rb".*[0-9]"),
}
"""Ops that still loop. Additions must be mentioned in docs/benchmarks.md; ops that no longer loop must be removed."""

OTHERS = {
    "check", "decode_image", "parse_tensor", "string_format", "sentence_fragments", "constrained_sequence", "max_spanning_tree", "rouge_l",
    "round_robin_masks", "decompress", "fingerprint", "decode_csv", "decode_raw", "decode_padded_raw", "encode_base64", "decode_base64",
    "sparse_cross", "sparse_cross_hashed", "ragged_cross", "parse_examples", "whitespace_tokenize_codepoints", "whitespace_tokenize",
    "unicode_script_tokenize", "split_merge_tokenize", "split_merge_from_logits", "ragged_keep", "ngrams_join", "ngrams_join_dense",
    "byte_split_by_offsets", "utf8_binarize",
}  # fmt: skip
"""Of one document, image or tensor, measured elsewhere (`parse_examples` by the benchmark), or rare: not judged here."""


def test_every_op_of_the_host_is_in_a_table() -> None:
    judged = {name.split(" ")[0] for name in (*FLAT, *LOOPS)}
    assert {name for name, op in OPS.items() if op.stage == "host"} - judged == OTHERS


def instructions(run: Callable[[], Any]) -> int:
    """The bytecodes that a call runs; what it caches is cached."""
    run()
    run()
    count = 0

    def traced(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def growth(make: Callable[[int], Callable[[], Any]]) -> float:
    """Instructions for each row more."""
    return (instructions(make(MANY)) - instructions(make(FEW))) / (MANY - FEW)


@pytest.mark.parametrize("name", FLAT)
def test_no_loop_over_rows(name: str) -> None:
    assert growth(FLAT[name]) <= FREE


@pytest.mark.parametrize("name", LOOPS)
def test_what_still_loops_is_listed(name: str) -> None:
    assert growth(LOOPS[name]) > FREE, f"{name} no longer loops: move it to the table above"
