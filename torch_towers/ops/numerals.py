"""Formatting numbers as text, and parsing text as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, dtype_name, torch_dtype
from torch_towers.graph.registry import Spec, Strings, elementwise, op
from torch_towers.kernels import native
from torch_towers.ops.strings import each, items_of, strings


@op(stage="host", infer=elementwise("string"))
def as_string(
    x: Tensor | Strings,
    *,
    precision: int = -1,
    scientific: bool = False,
    shortest: bool = False,
    width: int = -1,
    fill: Literal["", "0", "+", "-", " ", "#"] = "",
) -> Strings:
    """Numbers in C's printf format, booleans as "true" and "false": `[...] -> [...]`. Source: tf.raw_ops.AsString."""
    size = str(width) if width > -1 else ""
    pad = f"{fill}{size}"
    blanks = f"%{'-' if fill == '-' else ''}{size}s".encode()  # C pads with zeros only before digits
    if not isinstance(x, Tensor):
        return each(blanks.__mod__, x) if pad else x
    values = items_of(x)
    if x.dtype == torch.bool:
        return strings([b"true" if value else b"false" for value in values], x.shape)
    if not (x.is_floating_point() or x.is_complex()):
        if not dtype_name(x).startswith("int"):
            pad = pad.replace("+", "").replace(" ", "")  # C ignores sign flags for unsigned numbers
        return strings(list(map(f"%{pad}d".encode().__mod__, values)), x.shape)
    decimals = f".{precision}" if precision > -1 else ""
    form = f"%{pad}{decimals}{'g' if shortest else 'e' if scientific else 'f'}".encode()
    flushed = 0.0 if x.dtype == torch.float16 else torch.finfo(x.dtype).tiny

    def text(value: float) -> bytes:
        if -flushed < value < flushed:
            value = math.copysign(0.0, value)  # TensorFlow's threads flush denormals to zero
        if math.isfinite(value):
            return form % value
        sign = "-" if math.copysign(1, value) < 0 else fill if fill in ("+", " ") else ""
        return blanks % f"{sign}{'nan' if math.isnan(value) else 'inf'}".encode()

    if x.is_complex():
        return strings([b"(" + text(value.real) + b"," + text(value.imag) + b")" for value in values], x.shape)
    return strings(list(map(text, values)), x.shape)


def _to_number_spec(x: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, x[1])]


_BLANK = rb"[ \t\n\v\f\r]*"
_INTEGER = re.compile(_BLANK + rb"[+-]?[0-9]+" + _BLANK)
_UNSIGNED = re.compile(_BLANK + rb"\+?[0-9]+" + _BLANK)
_FLOAT = re.compile(
    _BLANK
    + rb"([+-]?)(?:((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    + rb"|(0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?)"
    + rb"|(inf|infinity)|nan(?:\([0-9A-Za-z_]*\))?)"
    + _BLANK,
    re.IGNORECASE,
)


@op(stage="host", infer=_to_number_spec)
def to_number(x: Strings, *, dtype: Dtype) -> Tensor:
    """Parses strings as numbers: `[...] -> [...]`. Raises InputError, with TensorFlow's message, for invalid numbers.

    Source: tf.raw_ops.StringToNumber.
    """
    texts = x.ravel().tolist()
    if dtype in ("float32", "float64"):
        values = _plain_numbers(x, np.float64)
        if values is None:
            values = np.array(list(map(_float, texts)), np.float64)
        if dtype == "float32":
            values = _round_once(values, texts)
        return torch.as_tensor(values).reshape(x.shape)
    limits = torch.iinfo(torch_dtype(dtype))
    plain = _plain_numbers(x, np.int64)
    if (
        plain is not None
        and limits.min <= plain.min(initial=0)
        and plain.max(initial=0) <= limits.max
        and limits.min < 0
    ):
        return torch.as_tensor(plain.astype(dtype)).reshape(x.shape)
    syntax = _INTEGER if limits.min < 0 else _UNSIGNED
    numbers: list[int] = []
    for text in texts:
        if syntax.fullmatch(text) is None:
            raise _not_a_number(text)
        digits = text.strip()
        number = int(digits) if len(digits) < 4000 else _long_integer(digits)
        if not limits.min <= number <= limits.max:
            raise _not_a_number(text)
        numbers.append(number)
    return torch.as_tensor(np.array(numbers, dtype)).reshape(x.shape)


def _plain_numbers(x: Strings, dtype: type[np.generic]) -> np.ndarray[Any, Any] | None:
    """Parses decimal numbers by the native core; None if one is in another format."""
    found = np.empty(x.size, dtype)
    if native.core is None or not native.core.read_numbers(np.ascontiguousarray(x), dtype is np.float64, found):
        return None
    return found


def _long_integer(digits: bytes) -> int:
    """Strips leading zeros: Python refuses to parse more than 4300 digits, and valid numbers have no more than that
    otherwise."""
    kept = digits.lstrip(b"+-0") or b"0"
    return int(digits[:1].replace(b"+", b"") + kept) if len(kept) < 100 else 1 << 65


def _not_a_number(text: bytes) -> InputError:
    return InputError(f"StringToNumberOp could not correctly convert string: {text.decode('utf-8', 'replace')}")


def _float(text: bytes) -> float:
    """The nearest float64, parsed like C's strtod."""
    match = _FLOAT.fullmatch(text)
    if match is None:
        raise _not_a_number(text)
    sign, decimal, hexadecimal, infinity = match.groups()
    if decimal is not None:
        value = float(decimal)
    elif hexadecimal is not None:
        try:
            value = float.fromhex(hexadecimal.decode())
        except OverflowError:
            value = math.inf
    else:
        value = math.inf if infinity is not None else math.nan
    return -value if sign == b"-" else value


def _round_once(values: np.ndarray[Any, Any], texts: list[bytes]) -> np.ndarray[Any, Any]:
    """Float64 to float32 without double rounding: for ties between two float32, the text decides."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
        other = np.nextafter(
            narrow, np.where(values > narrow, np.float32(np.inf), np.float32(-np.inf)).astype(np.float32)
        )
        wide, beyond = narrow.astype(np.float64), other.astype(np.float64)
        limit = float(np.finfo(np.float32).max) + 2.0**103
        halfway = ((wide + beyond) / 2 == values) & (values != wide) | (np.abs(values) == limit)
    for index in np.flatnonzero(halfway).tolist():
        exact, value = _exact(texts[index]), Fraction(float(values[index]))
        if exact != value:
            up = np.float32(np.inf) if exact > value else np.float32(-np.inf)
            near = np.nextafter(
                np.float64(values[index]), np.float64(up)
            )  # moves off the tie, to the side of the exact value
            with np.errstate(over="ignore"):
                narrow[index] = np.float32(near)
    return narrow


def _exact(text: bytes) -> Fraction:
    text = text.strip()
    sign = -1 if text[:1] == b"-" else 1
    digits = text.lstrip(b"+-").decode().lower()
    if not digits.startswith("0x"):
        return sign * Fraction(digits)
    mantissa, _, exponent = digits[2:].partition("p")
    whole, _, part = mantissa.partition(".")
    return sign * Fraction(int((whole + part) or "0", 16)) * Fraction(2) ** (int(exponent or 0) - 4 * len(part))


# -- templates ---------------------------------------------------------------------------------------------------------


@op(stage="host", infer=lambda *xs, **attrs: [("string", ())])
def string_format(*xs: Tensor | Strings, template: bytes, placeholder: bytes = b"%s", summarize: int = 3) -> Strings:
    """The template with each placeholder replaced by a tensor in TensorFlow's format: `-> []`. Source:
    tf.raw_ops.StringFormat."""
    pieces = template.split(placeholder)
    if len(pieces) != len(xs) + 1:
        raise InputError(f"num placeholders in template and num inputs must match: {len(pieces) - 1} vs. {len(xs)}")
    shown = [summary(x, summarize) for x in xs]
    return strings([b"".join(chain.from_iterable(zip(pieces, [*shown, b""], strict=True)))], ())


def summary(x: Tensor | Strings, summarize: int) -> bytes:
    """A tensor in TensorFlow's print format, at most `summarize` elements at both ends of each axis (-1: all)."""
    items = items_of(x)
    limit = len(items) + 1 if summarize < 0 else summarize
    show = _shown(x)
    if not limit and isinstance(x, Tensor) and x.dtype == torch.bool:
        return b""
    if not x.ndim:
        return show(items[0]) if limit else b"..."
    return _summary(items, list(x.shape), 0, limit, show)


def _summary(items: list[Any], shape: list[int], depth: int, limit: int, show: Callable[[Any], bytes]) -> bytes:
    size = shape[0]
    if len(shape) == 1:
        if size <= 2 * limit:
            return b"[" + b" ".join(map(show, items)) + b"]"
        head, tail = items[:limit], items[size - limit :]
        return b"[" + b" ".join([*map(show, head), b"...", *map(show, tail)] if limit else [b"", b"..."]) + b"]"
    gap = b"\n" * (len(shape) - 1)
    indent = gap + b" " * (depth + 1)
    if not limit or not items:
        return b"[" + gap + b" ...]"
    step = len(items) // size
    indices: list[int | None] = list(range(size))
    if size > 2 * limit:
        indices[limit : size - limit] = [None]
    rows = [
        b"..." if i is None else _summary(items[i * step : (i + 1) * step], shape[1:], depth + 1, limit, show)
        for i in indices
    ]
    return b"[" + indent.join(rows) + b"]"


_NAMED = {b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b'"': b'\\"', b"'": b"\\'", b"\\": b"\\\\"}
_ESCAPED = [_NAMED.get(bytes([byte]), bytes([byte]) if 32 <= byte != 127 else b"\\%03o" % byte) for byte in range(256)]


def _shown(x: Tensor | Strings) -> Callable[[Any], bytes]:
    if not isinstance(x, Tensor):
        return lambda item: b'"' + b"".join(map(_ESCAPED.__getitem__, item)) + b'"'
    if x.dtype == torch.bool:
        return lambda item: b"1" if item else b"0"
    if x.dtype == torch.float64:
        return lambda item: _float_text(item, 15, 17, float)
    if x.is_floating_point():
        return lambda item: _float_text(item, 6, 9, np.float32)
    return lambda item: b"%d" % item


def _float_text(value: float, digits: int, enough: int, kind: Callable[[Any], Any]) -> bytes:
    """The shorter of two formats that round-trips."""
    if not math.isfinite(value):
        return str(value).encode()
    short = b"%.*g" % (digits, value)
    return short if kind(float(short)) == kind(value) else b"%.*g" % (enough, value)
