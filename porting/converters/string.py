"""Strings: case, splitting, joining, regular expressions, numbers as text, hashing."""

from __future__ import annotations

from typing import Any

import numpy as np

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant, Dimensions
from porting.errors import PortingError
from torch_towers.errors import InputError
from torch_towers.ops.re2 import compiled

Emit = ConvertingEmitter


# -- case and white space -----------------------------------------------------------------------------------------------


@converter("StringLower")
def lower(t: Emit, x: Any, *, encoding: bytes = b"") -> Any:
    return t.lower(x, encoding=_encoding(t, encoding))


@converter("StringUpper")
def upper(t: Emit, x: Any, *, encoding: bytes = b"") -> Any:
    return t.upper(x, encoding=_encoding(t, encoding))


def _encoding(t: Emit, encoding: bytes) -> str:
    if encoding not in (b"", b"utf-8"):
        raise PortingError(
            f"{t.scope!r}: only utf-8 or '' (no encoding) is supported, received {encoding.decode('utf-8', 'replace')}"
        )
    return encoding.decode()


@converter("StringStrip")
def strip(t: Emit, x: Any) -> Any:
    return t.strip(x)


# -- splitting and joining ----------------------------------------------------------------------------------------------


@converter("StringSplitV2", outputs=("indices", "values", "shape"))
def split(t: Emit, x: Any, sep: bytes, *, maxsplit: int = -1) -> Any:
    return t.split(x, sep=sep, maxsplit=maxsplit)


@converter("StringSplit", outputs=("indices", "values", "shape"))
def split_at_any(t: Emit, x: Any, delimiter: bytes, *, skip_empty: bool = True) -> Any:
    return t.split_at_any(x, delimiters=delimiter, skip_empty=skip_empty)


@converter("StringJoin")
def string_join(t: Emit, *xs: Any, separator: bytes = b"") -> Any:
    return xs[0] if len(xs) == 1 else t.string_join(*xs, separator=separator)


@converter("ReduceJoin")
def reduce_join(t: Emit, x: Any, axes: np.ndarray, *, keep_dims: bool = False, separator: bytes = b"") -> Any:
    wanted = tuple(axes.reshape(-1).tolist())
    if not wanted or x.shape == ():
        return x
    if x.shape is not None:
        rank = len(x.shape)
        outside = [axis for axis in wanted if not -rank <= axis < rank]
        if outside:
            raise PortingError(
                f"{t.scope!r}: Invalid reduction dimension {outside[0]} for input with {rank} dimension(s)"
            )
        if len({axis % rank for axis in wanted}) < len(wanted):
            raise PortingError(f"{t.scope!r}: Duplicate reduction dimension in {list(wanted)}")
    return t.reduce_join(x, axes=wanted, keep_dims=keep_dims, separator=separator)


@converter("UnsortedSegmentJoin")
def segment_join(t: Emit, x: Any, segment_ids: Any, num_segments: Dimensions, *, separator: bytes = b"") -> Any:
    return t.segment_join(x, segment_ids, *num_segments, separator=separator)  # type: ignore[reportGeneralTypeIssues]


@converter("StringNGrams", outputs=("ngrams", "ngrams_splits"))
def ngrams(
    t: Emit,
    data: Any,
    splits: Any,
    *,
    separator: bytes,
    ngram_widths: tuple[int, ...],
    left_pad: bytes,
    right_pad: bytes,
    pad_width: int,
    preserve_short_sequences: bool,
) -> Any:
    return t.ngrams(
        data,
        splits,
        separator=separator,
        widths=ngram_widths,
        left_pad=left_pad,
        right_pad=right_pad,
        pad_width=pad_width,
        preserve_short=preserve_short_sequences,
    )


# -- regular expressions ------------------------------------------------------------------------------------------------


@converter("StaticRegexReplace")
def static_regex_replace(t: Emit, x: Any, *, pattern: bytes, rewrite: bytes, replace_global: bool = True) -> Any:
    return t.regex_replace(x, pattern=_checked(t, pattern), rewrite=rewrite, replace_global=replace_global)


@converter("RegexReplace", refuses="patterns and rewrites computed at run time")
def regex_replace(t: Emit, x: Any, pattern: bytes, rewrite: bytes, *, replace_global: bool = True) -> Any:
    return t.regex_replace(x, pattern=_checked(t, pattern), rewrite=rewrite, replace_global=replace_global)


@converter("StaticRegexFullMatch")
def static_regex_full_match(t: Emit, x: Any, *, pattern: bytes) -> Any:
    return t.regex_full_match(x, pattern=_checked(t, pattern))


@converter("RegexFullMatch", refuses="patterns computed at run time")
def regex_full_match(t: Emit, x: Any, pattern: bytes) -> Any:
    return t.regex_full_match(x, pattern=_checked(t, pattern))


def _checked(t: Emit, pattern: bytes) -> bytes:
    try:
        compiled(pattern)
    except InputError as error:
        raise PortingError(f"{t.scope!r}: {error}") from None
    return pattern


# -- parts, lengths, numbers --------------------------------------------------------------------------------------------


@converter("Substr")
def substr(t: Emit, x: Any, pos: Any, length: Any, *, unit: bytes = b"BYTE") -> Any:
    return t.substr(x, t.tensor(pos), t.tensor(length), unit=unit.decode())


@converter("StringLength")
def string_length(t: Emit, x: Any, *, unit: bytes = b"BYTE") -> Any:
    return t.string_length(x, unit=unit.decode())


@converter("AsString")
def as_string(
    t: Emit,
    x: Any,
    *,
    precision: int = -1,
    scientific: bool = False,
    shortest: bool = False,
    width: int = -1,
    fill: bytes = b"",
) -> Any:
    if scientific and shortest:
        raise PortingError(f"{t.scope!r}: Cannot select both scientific and shortest notation")
    if fill not in (b"", b"0", b"-", b" ", b"+", b"#"):
        raise PortingError(f"{t.scope!r}: Fill argument not supported: {fill!r}")
    return t.as_string(
        t.tensor(x), precision=precision, scientific=scientific, shortest=shortest, width=width, fill=fill.decode()
    )


@converter("StringToNumber")
def to_number(t: Emit, x: Any, *, out_type: str = "float32") -> Any:
    return t.to_number(x, dtype=out_type)


@converter("StringFormat", refuses="complex numbers")
def string_format(t: Emit, *xs: Any, template: bytes = b"%s", placeholder: bytes = b"%s", summarize: int = 3) -> Any:
    tensors = [t.tensor(x) for x in xs]
    if any((x.dtype or "").startswith("complex") for x in tensors):
        raise PortingError(f"{t.scope!r}: StringFormat of complex numbers is not supported")
    return t.string_format(*tensors, template=template, placeholder=placeholder, summarize=summarize)


@converter("EncodeBase64")
def encode_base64(t: Emit, x: Any, *, pad: bool = False) -> Any:
    return t.encode_base64(x, pad=pad)


@converter("DecodeBase64")
def decode_base64(t: Emit, x: Any) -> Any:
    return t.decode_base64(x)


# -- hashing ------------------------------------------------------------------------------------------------------------


@converter("StringToHashBucketFast")
def hash_bucket_fast(t: Emit, x: Any, *, num_buckets: int) -> Any:
    return t.hash_bucket_fast(x, num_buckets=num_buckets)


@converter("StringToHashBucketStrong")
def hash_bucket_strong(t: Emit, x: Any, *, num_buckets: int, key: tuple[int, ...]) -> Any:
    if len(key) != 2:
        raise InputError(f"Key must have 2 elements, and has {len(key)}")
    return t.hash_bucket_strong(x, num_buckets=num_buckets, key=key)


@converter("StringToHashBucket")
def hash_bucket_legacy(t: Emit, x: Any, *, num_buckets: int) -> Any:
    return t.hash_bucket_legacy(x, num_buckets=num_buckets)


@converter("Fingerprint")
def fingerprint(t: Emit, x: Any, method: bytes) -> Any:
    if method != b"farmhash64":
        raise PortingError(f"{t.scope!r}: Unsupported fingerprint method: {method.decode('utf-8', 'replace')}")
    return t.fingerprint(t.tensor(x) if not isinstance(x, Constant) else x)
