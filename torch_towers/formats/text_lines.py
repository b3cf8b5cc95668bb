r"""Byte strings as readable lines of text, losslessly.

Text stays itself. A backslash is `\\`, line feed `\n`, carriage return `\r`, tab `\t`; every other control character,
line separator or byte that is not UTF-8 is `\x` and two hexadecimal digits: `b"a\xff\nb"` is the line `a\xff\nb`.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator

import numpy as np

from torch_towers.errors import CheckpointError
from torch_towers.graph.registry import Strings

# Controls, line separators and U+FEFF, at which editors break lines or which they drop, and bytes that are not UTF-8.
_SHOWN = {
    **{code: "".join(f"\\x{byte:02x}" for byte in chr(code).encode())
       for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF)},
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},
    **str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}),
}  # fmt: skip
_SPECIAL = re.compile(f"[{re.escape(''.join(map(chr, _SHOWN)))}]")
_WRONG = re.compile(rb"\\(?:x[0-9a-f]{2}|.|$)", re.DOTALL)
_ESCAPED = re.compile(rb"(?:[^\\]++|\\(?:x[0-9a-f]{2}|[\\nrt]))*+")
_BLOCK = 1 << 20  # bytes of lines at a time


def escape(token: bytes) -> bytes:
    """`token` on one line of UTF-8."""
    if len(token) <= _BLOCK:
        return _escaped(token.decode(errors="surrogateescape"))
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    pieces = [_escaped(decoder.decode(token[at : at + _BLOCK])) for at in range(0, len(token), _BLOCK)]
    return b"".join([*pieces, _escaped(decoder.decode(b"", final=True))])


def _escaped(text: str) -> bytes:
    return (text.translate(_SHOWN) if _SPECIAL.search(text) else text).encode()


def unescape(line: bytes) -> bytes:
    """The inverse of `escape`. `CheckpointError` for an unknown escape."""
    if b"\\" not in line:
        return line
    _check_escapes(line)
    return line.decode("unicode_escape").encode("latin-1")  # the known escapes are Python's own


def _split(text: bytes) -> list[bytes]:
    """The tokens of some lines."""
    if b"\\" not in text:
        return text.split(b"\n")
    _check_escapes(text)
    decoded = text.replace(b"\n", rb"\u0100").decode("unicode_escape")  # at U+0100, which no byte of a token becomes
    return [token.encode("latin-1") for token in decoded.split("\u0100")]


def _check_escapes(text: bytes) -> None:
    known = _ESCAPED.match(text)
    if known is not None and known.end() < len(text):
        wrong = _WRONG.match(text, known.end())
        raise CheckpointError(
            f"{wrong[0] if wrong else b''!r} is not an escape: known are \\\\, \\n, \\r, \\t and \\x with two digits"
        )


def to_lines(tokens: Iterable[bytes]) -> bytes:
    """One escaped token per line; the last line ends in a line feed, too."""
    file = io.BytesIO()
    file.writelines(escape(token) + b"\n" for token in tokens)
    return file.getvalue()


def line_blocks(data: bytes) -> Iterator[bytes]:
    """`data` about a megabyte at a time, cut at line feeds, which are left out there."""
    at = 0
    while at < len(data):
        end = data.rfind(b"\n", at, at + _BLOCK)
        end = data.find(b"\n", at) if end < 0 else end
        end = len(data) if end < 0 else end
        yield data[at:end]
        at = end + 1


def from_lines(data: bytes) -> Strings:
    """The inverse of `to_lines`: `[lines]`. `CheckpointError` if the last line is incomplete.

    Read some lines at a time, so that even empty lines take no more than a pointer each.
    """
    if data and not data.endswith(b"\n"):
        raise CheckpointError("the last line does not end in a line feed: the file is truncated")
    tokens = np.empty(data.count(b"\n"), object)
    done = 0
    for block in line_blocks(data):
        lines = _split(block)
        tokens[done : done + len(lines)] = lines
        done += len(lines)
    return tokens
