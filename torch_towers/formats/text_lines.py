r"""Byte strings as lines that a person can read, and back, to the byte.

Text stays itself. A backslash is `\\`, line feed `\n`, carriage return `\r`, tab `\t`; every other control character, line separator
or byte that is not UTF-8 is `\x` and two hexadecimal digits: `b"a\xff\nb"` is the line `a\xff\nb`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch_towers.errors import CheckpointError

_NAMED = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t"}
_BYTES = {escape: raw for raw, escape in _NAMED.items()}
# Controls, DEL, and the UTF-8 of U+0080-U+009F, U+2028, U+2029 and U+FEFF: editors break lines at them, or swallow them.
_SPECIAL = re.compile(rb"[\x00-\x1f\x7f\\]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbb\xbf")
_ESCAPE = re.compile(rb"\\(?:x[0-9a-f]{2}|.|$)", re.DOTALL)


def escape(token: bytes) -> bytes:
    """`token` on one line of UTF-8."""
    line = _SPECIAL.sub(lambda match: _NAMED.get(match[0]) or _hex(match[0]), token)
    try:
        line.decode()
    except UnicodeDecodeError:
        line = re.sub(
            "[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", line.decode(errors="surrogateescape")
        ).encode()
    return line


def unescape(line: bytes) -> bytes:
    """The bytes that `escape` wrote as `line`. `CheckpointError` at an escape that it does not know."""
    return _ESCAPE.sub(_byte, line) if b"\\" in line else line


def to_lines(tokens: Iterable[bytes]) -> bytes:
    """One escaped token per line; the last line ends in a line feed too."""
    return b"".join([escape(token) + b"\n" for token in tokens])


def from_lines(data: bytes) -> list[bytes]:
    """The tokens of `to_lines`. `CheckpointError` where the last line does not end."""
    lines = data.split(b"\n")
    if lines.pop():
        raise CheckpointError("the last line does not end in a line feed: the file was cut off")
    return [unescape(line) for line in lines] if b"\\" in data else lines


def _hex(raw: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in raw)


def _byte(match: re.Match[bytes]) -> bytes:
    escape = match[0]
    if escape in _BYTES:
        return _BYTES[escape]
    if len(escape) == 4:
        return bytes([int(escape[2:], 16)])
    raise CheckpointError(f"{escape!r} is not an escape: known are \\\\, \\n, \\r, \\t and \\x with two digits")
