"""TensorFlow Text: normalization, and tokenization with byte offsets.

Each tokenizer returns flat tokens and row splits: `splits[i]` to `splits[i + 1]` are the tokens of text `i`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats.normalization import WHITE_SPACE, case_fold, normalizer, scripts
from torch_towers.graph.registry import Number, Spec, Strings, elementwise, op, returns
from torch_towers.kernels import native
from torch_towers.ops.re2 import check_groups, compiled
from torch_towers.ops.regex_classes import classes_of, without_group
from torch_towers.ops.strings import each, strings

Array = np.ndarray[Any, Any]

FLAT: dict[str, Spec] = {dtype: (dtype, (None,)) for dtype in ("string", "int32", "int64", "uint8", "float32")}
TOKENS = returns(FLAT["string"], FLAT["int64"], FLAT["int64"], FLAT["int64"])


def int64(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def integers(x: Tensor) -> list[int]:
    return x.tolist()  # type: ignore[reportUnknownMemberType]


# -- normalizing ----------------------------------------------------------------------------------------------------------


@op(stage="host", infer=elementwise("string"))
def case_fold_utf8(x: Strings) -> Strings:
    """Case folded by Unicode's NFKC_Casefold: `[...] -> [...]`. Source: tensorflow_text CaseFoldUTF8."""
    return each(case_fold, x, ascii=bytes.lower)


@op(stage="host", infer=elementwise("string"))
def normalize_utf8(x: Strings, *, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> Strings:
    """The normalization form "NFC", "NFD", "NFKC" or "NFKD": `[...] -> [...]`. Source: tensorflow_text
    NormalizeUTF8."""
    return each(normalizer(form), x, ascii=bytes)


# -- regular expressions --------------------------------------------------------------------------------------------------


@op(stage="host", infer=TOKENS)
def regex_split_with_offsets(x: Strings, *, delimiter: bytes, keep: bytes) -> tuple[Strings, Tensor, Tensor, Tensor]:
    """Splits at the first group of the RE2 pattern `delimiter`; delimiters that fully match `keep` are tokens too.

    `[n] -> tokens [t], starts [t], limits [t], splits [n + 1]`. A text ends at its first NUL, as in TensorFlow. Raises
    InputError if the pattern is invalid or matches the empty string (TensorFlow would loop forever). Source:
    RegexSplitWithOffsets.
    """
    split = _regex_splitter(delimiter, keep)
    return _split_at_classes(x, delimiter, keep) or _split_one_by_one(x.ravel().tolist(), split)


def _split_one_by_one(texts: list[bytes], split: _Splitter) -> tuple[Strings, Tensor, Tensor, Tensor]:
    tokens: list[bytes] = []
    starts: list[int] = []
    limits: list[int] = []
    splits = [0]
    for text in texts:
        text = text.partition(b"\0")[0]
        for start, limit in split(text):
            tokens.append(text[start:limit])
            starts.append(start)
            limits.append(limit)
        splits.append(len(tokens))
    return strings(tokens, (len(tokens),)), int64(starts), int64(limits), int64(splits)


def _split_at_classes(x: Strings, delimiter: bytes, keep: bytes) -> tuple[Strings, Tensor, Tensor, Tensor] | None:
    """Fast path by the native core; None for unsupported patterns."""
    if native.core is None or without_group(delimiter) is None:
        return None
    classes, kept = classes_of(delimiter), classes_of(keep) if keep else None
    if classes is None or (keep and kept is None):
        return None
    tokens, *found, left = native.core.split_classes(np.ascontiguousarray(x), classes, kept)
    starts, limits, splits = (torch.frombuffer(part, dtype=torch.int64) if part else int64([]) for part in found)
    whole = strings(tokens, (len(tokens),)), starts, limits, splits
    return whole if left is None else _with_rows(whole, left, x, _regex_splitter(delimiter, keep))


def _with_rows(
    found: tuple[Strings, Tensor, Tensor, Tensor], rows: list[int], x: Strings, split: _Splitter
) -> tuple[Strings, Tensor, Tensor, Tensor]:
    """Inserts the tokens of `rows`, which have none yet, into the result."""
    *columns, splits = found
    *new, bounds = _split_one_by_one(x.ravel()[rows].tolist(), split)
    counts = bounds.diff()
    places = torch.repeat_interleave(splits[rows], counts).numpy()
    tokens, starts, limits = (
        np.insert(np.asarray(old), places, np.asarray(more)) for old, more in zip(columns, new, strict=True)
    )
    added = torch.zeros_like(splits).index_copy(0, torch.tensor(rows) + 1, counts).cumsum(0)
    return tokens, torch.from_numpy(starts), torch.from_numpy(limits), splits + added  # type: ignore[reportUnknownMemberType]


_Splitter = Callable[[bytes], list[tuple[int, int]]]
"""Maps a text to the byte ranges of its tokens."""


@lru_cache(maxsize=64)
def _regex_splitter(delimiter: bytes, keep: bytes) -> _Splitter:
    find, kept = compiled(delimiter), compiled(keep, captures=False)
    check_groups(find)
    grouped = find.groups > 0  # without a group, TensorFlow finds nothing
    # After each delimiter TensorFlow searches only the rest of the text; only these operators notice.
    alone = re.search(rb"\^|\\[AbB]", delimiter) is not None

    def split(text: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        last, base, rest = 0, 0, text
        while grouped and (match := find.search(rest, last - base)):
            start, limit = (base + offset for offset in match.span(1))
            end = base + match.end()
            if end == last or start < last:
                raise InputError(
                    f"regex_split: the delimiter {delimiter!r} matches the empty string: give one that does not"
                )
            if start > last:
                found.append((last, start))
            if keep and kept.fullmatch(text[start:limit]):
                found.append((start, limit))
            last = end
            if alone:
                base, rest = last, text[last:]
        if last < len(text):
            found.append((last, len(text)))
        return found

    return split


# -- code points ----------------------------------------------------------------------------------------------------------


def _codepoint_spec(values: Spec, splits: Spec, **attrs: Any) -> list[Spec]:
    return [FLAT["int32"], (splits[0], (None,)), FLAT["int64"], FLAT["int64"], splits]


_Tokens = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _runs(codes: Array, splits: Tensor, changes: Array, kept: Array) -> _Tokens:
    """Tokens as in `whitespace_tokenize_codepoints`: runs of code points, without those not `kept`.

    A run starts at the start of a text and where `changes`; one without a kept code point is no token.
    """
    bounds = splits.numpy() if len(splits) else np.zeros(1, np.int64)
    kept[: bounds[0]], kept[bounds[-1] :] = False, False
    changes[bounds[:-1][bounds[:-1] < len(codes)]] = True
    places = np.flatnonzero(kept)
    run = np.cumsum(changes)[places]
    inner = np.flatnonzero(np.diff(run, prepend=-1))
    first, last = places[inner], places[np.append(inner[1:], len(places))[: len(inner)] - 1]
    outer = np.searchsorted(first, bounds)
    start = np.repeat(bounds[:-1], np.diff(outer))
    found = codes[places].astype(np.int32), np.append(inner, len(places)), first - start, last + 1 - start, outer
    dtypes = (torch.int32, splits.dtype, torch.int64, torch.int64, splits.dtype)
    values = (torch.from_numpy(each).to(dtype) for each, dtype in zip(found, dtypes, strict=True))  # type: ignore[reportUnknownMemberType]
    return cast(_Tokens, tuple(values))


def _changes(*kinds: Array) -> Array:
    """Where one of `kinds` differs from the one before."""
    changed = [np.diff(kind, prepend=kind[:1]) != 0 for kind in kinds]
    return np.logical_or.reduce(changed)


_SPACES = np.array(sorted(WHITE_SPACE))


@op(stage="host", infer=_codepoint_spec)
def whitespace_tokenize_codepoints(values: Tensor, splits: Tensor) -> _Tokens:
    """Splits code points at white space.

    `values [c], splits [n + 1] -> code points [k], their token splits [t + 1], starts [t], limits [t], token splits [n
    + 1]`.
    Source: tensorflow_text WhitespaceTokenizeWithOffsets.
    """
    codes = values.numpy()
    space = np.isin(codes, _SPACES).astype(np.int8)
    return _runs(codes, splits, _changes(space), space == 0)


@op(stage="host", infer=_codepoint_spec)
def unicode_script_tokenize(values: Tensor, splits: Tensor, *, keep_whitespace: bool = False) -> _Tokens:
    """Splits code points by script; results as in `whitespace_tokenize_codepoints`.

    White space that is not kept belongs to no token, but a token may go on after it. Source: tensorflow_text
    UnicodeScriptTokenizeWithOffsets.
    """
    codes = values.numpy()
    space, kinds = np.isin(codes, _SPACES).astype(np.int8), scripts(codes)
    if keep_whitespace:
        return _runs(codes, splits, _changes(kinds, space), np.ones(len(codes), np.bool_))
    return _runs(codes, splits, _changes(kinds), space == 0)


@op(stage="host", infer=returns(FLAT["string"], FLAT["int64"], FLAT["int32"], FLAT["int32"]))
def whitespace_tokenize(x: Strings, *, config: bytes) -> tuple[Strings, Tensor, Tensor, Tensor]:
    """Splits at white space: `[n] -> tokens [t], splits [n + 1], starts [t], limits [t]`.

    `config` is a bitmap of white-space code points. A token followed by white space includes all but the last byte of
    that white space, as in TensorFlow. Source: tensorflow_text TFText>WhitespaceTokenizeWithOffsetsV2.
    """
    tokens: list[bytes] = []
    starts: list[int] = []
    limits: list[int] = []
    splits = [0]
    for text in x.ravel().tolist():
        start, position = -1, 0
        for character in split_utf8(text):
            position += len(character)
            code = codepoint(character)
            space = 0 <= code < 8 * len(config) and config[code >> 3] >> (code & 7) & 1
            if space and start >= 0:
                starts.append(start)
                limits.append(position - 1)
                tokens.append(text[start : position - 1])
                start = -1
            elif not space and start < 0:
                start = position - len(character)
        if start >= 0:
            starts.append(start)
            limits.append(len(text))
            tokens.append(text[start:])
        splits.append(len(tokens))
    offsets = (torch.tensor(starts, dtype=torch.int32), torch.tensor(limits, dtype=torch.int32))
    return strings(tokens, (len(tokens),)), int64(splits), *offsets


# In invalid UTF-8, the maximal well-formed part of a sequence is one character, like in ICU's U8_NEXT.
_CHARACTER = re.compile(
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]?|\xe0(?:[\xa0-\xbf][\x80-\xbf]?)?|\xed(?:[\x80-\x9f][\x80-\xbf]?)?"
    rb"|[\xe1-\xec\xee\xef](?:[\x80-\xbf][\x80-\xbf]?)?|\xf0(?:[\x90-\xbf](?:[\x80-\xbf][\x80-\xbf]?)?)?"
    rb"|[\xf1-\xf3](?:[\x80-\xbf](?:[\x80-\xbf][\x80-\xbf]?)?)?|\xf4(?:[\x80-\x8f](?:[\x80-\xbf][\x80-\xbf]?)?)?|[\x80-\xff]",
    re.DOTALL,
)


def split_utf8(text: bytes) -> list[bytes]:
    """The characters of UTF-8 text; for invalid UTF-8, the parts that ICU skips in one step."""
    return _CHARACTER.findall(text)


def codepoint(character: bytes) -> int:
    """The code point of one character; -1 if it is invalid UTF-8."""
    if len(character) == 1 and character[0] < 128:
        return character[0]
    try:
        return ord(character.decode())
    except UnicodeDecodeError:
        return -1


# -- split or merge -------------------------------------------------------------------------------------------------------


@op(stage="host", infer=returns(FLAT["string"], FLAT["int64"], FLAT["int64"], FLAT["int64"]))
def split_merge_tokenize(
    x: Strings, labels: Tensor, row_splits: Tensor, *, force_split_at_break_character: bool = True
) -> tuple[Strings, Tensor, Tensor, Tensor]:
    """Tokens start at label 0 and continue at any other label: `[n] -> tokens [t], splits [n + 1], starts [t], limits
    [t]`.

    `labels [c], row_splits [n + 1]` has one label per character. Raises InputError if there are too few.
    Source: tensorflow_text SplitMergeTokenizeWithOffsets.
    """
    bounds, values = integers(row_splits), integers(labels)
    if len(bounds) != x.size + 1:
        raise InputError(f"split_merge: row_splits has {len(bounds)} elements, expected {x.size + 1}")
    rows = [[label == 0 for label in values[first:last]] for first, last in itertools.pairwise(bounds)]
    return _split_merge(x, rows, force_split_at_break_character)


@op(stage="host", infer=returns(FLAT["string"], FLAT["int64"], FLAT["int64"], FLAT["int64"]))
def split_merge_from_logits(x: Strings, logits: Tensor, force_split: Number) -> tuple[Strings, Tensor, Tensor, Tensor]:
    """Tokens start where the "split" logit exceeds the "merge" logit: `[n] -> tokens [t], splits [n + 1], starts [t],
    limits [t]`.

    `logits [n, characters, 2]`. Raises InputError if there are too few. Source: tensorflow_text TokenizerFromLogits.
    """
    if logits.ndim != 3 or logits.shape[0] != x.size or logits.shape[2] != 2:
        raise InputError(f"split_merge: logits have shape {list(logits.shape)}, expected [{x.size}, characters, 2]")
    begins: Any = (logits[:, :, 0] > logits[:, :, 1]).tolist()  # type: ignore[reportUnknownMemberType]
    return _split_merge(x, begins, bool(force_split))


def _split_merge(x: Strings, rows: Sequence[Sequence[bool]], force: bool) -> tuple[Strings, Tensor, Tensor, Tensor]:
    tokens: list[bytearray] = []
    starts: list[int] = []
    limits: list[int] = []
    splits = [0]
    for text, begins in zip(x.ravel().tolist(), rows, strict=True):
        characters = _by_first_byte(text)
        if len(characters) > len(begins):
            raise InputError(
                f"split_merge: {len(begins)} labels are too few for the {len(characters)} characters of {text!r}"
            )
        position, after_break = 0, False
        for character, begin in zip(characters, begins, strict=False):
            is_break = codepoint(split_utf8(character)[0]) in WHITE_SPACE
            if not is_break:
                if begin or len(tokens) == splits[-1] or (after_break and force):
                    tokens.append(bytearray())
                    starts.append(position)
                    limits.append(0)
                tokens[-1] += character
                limits[-1] = position + len(character)
            position += len(character)
            after_break = is_break
        splits.append(len(tokens))
    return strings([bytes(token) for token in tokens], (len(tokens),)), int64(splits), int64(starts), int64(limits)


def _by_first_byte(text: bytes) -> list[bytes]:
    """Splits by the length that each first byte implies. A truncated last character is padded with NUL bytes, where
    TensorFlow reads past the end of the text (initially a NUL)."""
    characters: list[bytes] = []
    position = 0
    while position < len(text):
        length = (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4)[text[position] >> 4]
        characters.append(text[position : position + length].ljust(length, b"\0"))
        position += length
    return characters
