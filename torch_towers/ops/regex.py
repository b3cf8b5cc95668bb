"""Regular expressions on bytes, with RE2's semantics as in TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Strings, elementwise, op
from torch_towers.kernels import native
from torch_towers.ops.re2 import check_groups, compiled
from torch_towers.ops.regex_classes import classes_of
from torch_towers.ops.strings import each, strings


@op(stage="host", infer=elementwise("string"))
def regex_replace(x: Strings, *, pattern: bytes, rewrite: bytes, replace_global: bool = True) -> Strings:
    """Replaces matches of RE2; `\\1` in `rewrite` is a group: `[...] -> [...]`. Source:
    tf.raw_ops.StaticRegexReplace."""
    replace = replacer(pattern, rewrite, replace_global)
    texts = _replaced_by_class(x, pattern, rewrite) if replace_global else None
    if texts is None:
        return each(replace, x)
    for row in [row for row, text in enumerate(texts) if text is None] if None in texts else ():  # not UTF-8
        texts[row] = replace(x.ravel()[row])
    return strings(texts, x.shape)


def _replaced_by_class(x: Strings, pattern: bytes, rewrite: bytes) -> list[Any] | None:
    """Fast path by the native core: None for texts that it cannot handle; None in place of the list for other patterns
    or rewrites."""
    if native.core is None or (classes := classes_of(pattern)) is None:
        return None
    parts, _ = _rewrite_parts(rewrite)
    groups = [place for place, part in enumerate(parts) if isinstance(part, int)]
    if len(groups) > 1 or any(parts[place] > compiled(pattern).groups for place in groups):  # type: ignore[reportOperatorIssue]
        return None
    place = groups[0] if groups else len(parts)
    before, after = (b"".join(some) for some in (parts[:place], parts[place + 1 :]))  # type: ignore[reportArgumentType]
    return native.core.replace_classes(np.ascontiguousarray(x), classes, before, after, bool(groups))


@op(stage="host", infer=elementwise("bool"))
def regex_full_match(x: Strings, *, pattern: bytes) -> Tensor:
    """Whether RE2 matches the whole string: `[...] -> [...]` bool. Source: tf.raw_ops.StaticRegexFullMatch."""
    match = compiled(pattern, captures=False).fullmatch
    found = [match(text) is not None for text in x.ravel().tolist()]
    return torch.tensor(found, dtype=torch.bool).reshape(x.shape)


_ONE_BYTE = re.compile(
    rb"(\[\^?(?!\^)(?:[^\[\]\\\x80-\xff]|\\[^A-Za-z0-9\x80-\xff]|\\[dswntr])+\]|\\[dsw])(\+?)", re.DOTALL
)
"""A class of ASCII characters: every match is one byte (or, with a plus, a run of such bytes)."""
_LITERAL = re.compile(rb"[A-Za-z0-9 <>/&;:,_=!@#%'\"~`-]+")


@lru_cache(maxsize=256)
def replacer(pattern: bytes, rewrite: bytes, replace_global: bool) -> Callable[[bytes], bytes]:
    """A function from bytes to bytes equal to `RE2::GlobalReplace` or `RE2::Replace` for one pattern and rewrite."""
    regexp = compiled(pattern)
    parts, valid = _rewrite_parts(rewrite)
    if max((part for part in parts if isinstance(part, int)), default=0) > regexp.groups or not (
        valid or replace_global
    ):
        return bytes
    if not any(isinstance(part, int) and part > 0 for part in parts):
        regexp = compiled(pattern, captures=False)
    else:
        check_groups(regexp)
    change = _slow_replacer(regexp, parts, replace_global)
    if any(isinstance(part, int) for part in parts):
        return _word_by_word(pattern, change) if replace_global else change
    literal = b"".join(part for part in parts if isinstance(part, bytes))
    fast = _without_re2(pattern, literal, replace_global, change)
    return fast or (_word_by_word(pattern, change) if replace_global else change)


def _slow_replacer(regexp: Any, parts: list[bytes | int], replace_global: bool) -> Callable[[bytes], bytes]:
    """The replacement by RE2, match by match."""
    replace = _replace_all if replace_global else _replace_first
    return lambda text: replace(regexp, lambda match: _expanded(parts, match), text)


def _expanded(parts: list[bytes | int], match: Any) -> bytes:
    return b"".join([part if isinstance(part, bytes) else match[part] or b"" for part in parts])


def _without_re2(
    pattern: bytes, literal: bytes, replace_global: bool, slow: Callable[[bytes], bytes]
) -> Callable[[bytes], bytes] | None:
    """A faster equivalent for patterns so simple that it agrees with RE2 on any bytes, else None."""
    count = -1 if replace_global else 1
    if _LITERAL.fullmatch(pattern):
        return lambda text: text.replace(pattern, literal, count)
    found = one_byte_class(pattern)
    if found is None:
        return None
    fast = _bytes_replacer(found.ascii, found.runs, literal, replace_global)
    if found.beyond:
        return lambda text: fast(text) if text.isascii() else slow(text)
    return fast


class OneByteClass(NamedTuple):
    """A pattern of one class: its ASCII bytes, whether it matches runs of them, and whether it also matches every
    character `beyond` ASCII."""

    ascii: bytes
    runs: bool
    beyond: bool


@lru_cache(maxsize=256)
def one_byte_class(pattern: bytes) -> OneByteClass | None:
    """The class, if the pattern is a class of ASCII characters, or of all characters except some ASCII ones. Both match
    no invalid UTF-8."""
    if len(pattern) == 1 and _LITERAL.fullmatch(pattern):
        return OneByteClass(pattern, False, False)
    simple = _ONE_BYTE.fullmatch(pattern)
    if simple is None:
        return None
    atom = compiled(simple[1], captures=False)
    found = bytes(byte for byte in range(128) if atom.fullmatch(bytes([byte])))
    return OneByteClass(found, bool(simple[2]), simple[1].startswith(b"[^"))


def literal_rewrite(rewrite: bytes) -> bytes | None:
    """The replacement text of a rewrite without groups, as `RE2::GlobalReplace` reads it."""
    parts, _ = _rewrite_parts(rewrite)
    return None if any(isinstance(part, int) for part in parts) else b"".join(parts)  # type: ignore[reportArgumentType]


def _bytes_replacer(found: bytes, runs: bool, literal: bytes, replace_global: bool) -> Callable[[bytes], bytes]:
    """Replaces each byte in `found`, or each run of such bytes, by `literal`."""
    if not found:
        return bytes
    if replace_global and len(literal) <= 1 and (not runs or not literal or literal in found):
        table = bytes.maketrans(found, literal * len(found)) if literal else None
        dropped = b"" if literal else found
        if not runs or not literal:
            return lambda text: text.translate(table, dropped)
        return lambda text: _squeezed(text.translate(table), literal)
    python = re.compile(b"[" + b"".join(re.escape(bytes([byte])) for byte in found) + b"]" + b"+" * runs)
    template, count = literal.replace(b"\\", b"\\\\"), 0 if replace_global else 1
    return lambda text: python.sub(template, text, count)


def _squeezed(text: bytes, byte: bytes) -> bytes:
    """Collapses runs of `byte`."""
    while byte + byte in text:
        text = text.replace(byte + byte, byte)
    return text


_PLAIN = rb"A-Za-z0-9_<>/&;:,=!@#%'\"~`"
_WORDWISE = re.compile(
    rb"(?:[" + _PLAIN + rb"-]|\\[bdwS]|\(\?:|\((?!\?)|[)|*+?]|\{\d+(?:,\d*)?\}"
    rb"|\[(?!\^)(?:a-z|A-Z|0-9|[" + _PLAIN + rb"+*.?()|{}$])+\])+"
)
"""Patterns that cannot match a space, and that treat an adjacent space like the end of the text."""
_MEMO, _LONG = 1 << 15, 64


class _Memo(dict[bytes, bytes]):
    """A bounded cache of a function's results for short texts."""

    def __init__(self, function: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, text: bytes) -> bytes:
        if len(self) >= _MEMO:
            self.clear()
        value = self._function(text)
        if len(text) <= _LONG:
            self[text] = value
        return value


def _word_by_word(pattern: bytes, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The same function applied word by word with memoization, if the pattern allows that."""
    if not is_wordwise(pattern):
        return change
    changed = _Memo(change).__getitem__
    return lambda text: b" ".join(map(changed, text.split(b" ")))


def is_wordwise(pattern: bytes) -> bool:
    """Whether replacing all matches in a text equals replacing them in each space-separated word."""
    return _WORDWISE.fullmatch(pattern) is not None and not _matches_nothing(pattern)


def _matches_nothing(pattern: bytes) -> bool:
    """Whether the pattern may match the empty string."""
    try:
        return compiled(pattern.replace(rb"\b", b""), captures=False).fullmatch(b"") is not None
    except InputError:  # invalid without its word boundaries
        return True


def _rewrite_parts(rewrite: bytes) -> tuple[list[bytes | int], bool]:
    """Literal bytes and group numbers, and whether RE2 accepts the rewrite; if not, the parts before the error."""
    parts: list[bytes | int] = []
    position = 0
    while position < len(rewrite):
        byte = rewrite[position : position + 1]
        if byte == b"\\":
            position += 1
            byte = rewrite[position : position + 1]
            if byte.isdigit():
                parts.append(int(byte))
            elif byte == b"\\":
                parts.append(byte)
            else:
                return parts, False
        else:
            parts.append(byte)
        position += 1
    return parts, True


def _replace_first(regexp: Any, expand: Callable[[Any], bytes], text: bytes) -> bytes:
    match = regexp.search(text)
    return text if match is None else text[: match.start()] + expand(match) + text[match.end() :]


def _replace_all(regexp: Any, expand: Callable[[Any], bytes], text: bytes) -> bytes:
    pieces: list[bytes] = []
    position = 0
    for match in regexp.finditer(text):
        start, stop = match.span()
        if start == stop:
            return _replace_all_with_empty(regexp, expand, text)
        pieces += (text[position:start], expand(match))
        position = stop
    if not pieces:
        return text
    pieces.append(text[position:])
    return b"".join(pieces)


def _replace_all_with_empty(regexp: Any, expand: Callable[[Any], bytes], text: bytes) -> bytes:
    """`RE2::GlobalReplace` for empty matches: not directly after a match, and never inside a character."""
    pieces: list[bytes] = []
    position, last = 0, -1
    while position <= len(text):
        match = regexp.search(text, position)
        if match is None:
            break
        start, stop = match.span()
        pieces.append(text[position:start])
        if start == stop == last:
            step = _character(text, position)
            pieces[-1] = text[position : position + step]
            position += step
            continue
        pieces.append(expand(match))
        position = last = stop
    pieces.append(text[position:])
    return b"".join(pieces)


def _character(text: bytes, position: int) -> int:
    """The number of bytes of the UTF-8 character at `position`; 1 if it is invalid or truncated."""
    lead = text[position] if position < len(text) else 0
    size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    try:
        text[position : position + size].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return 1
    return size
