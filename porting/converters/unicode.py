"""Unicode: code points, encodings, scripts."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError
from torch_towers.ops.unicode import is_known

Emit = ConvertingEmitter
_REFUSES = "encodings other than UTF-8, UTF-16, UTF-32 of one byte order, ASCII, the common ISO-8859 and windows-125x"


@converter("UnicodeTranscode", refuses=_REFUSES)
def transcode(
    t: Emit,
    x: Any,
    *,
    input_encoding: bytes,
    output_encoding: bytes,
    errors: bytes = b"replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
) -> Any:
    return t.transcode(
        x,
        input_encoding=_known(t, input_encoding),
        output_encoding=output_encoding.decode(),
        errors=errors.decode(),
        replacement=replacement_char,
        replace_control=replace_control_characters,
    )


@converter("UnicodeDecode", outputs=("row_splits", "char_values"), refuses=_REFUSES)
def decode(
    t: Emit,
    x: Any,
    *,
    input_encoding: bytes,
    errors: bytes = b"replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    Tsplits: str = "int64",
) -> Any:
    return t.unicode_decode(
        x,
        input_encoding=_known(t, input_encoding),
        errors=errors.decode(),
        replacement=replacement_char,
        replace_control=replace_control_characters,
        splits_dtype=Tsplits,
    )


@converter("UnicodeDecodeWithOffsets", outputs=("row_splits", "char_values", "char_to_byte_starts"), refuses=_REFUSES)
def decode_with_offsets(
    t: Emit,
    x: Any,
    *,
    input_encoding: bytes,
    errors: bytes = b"replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    Tsplits: str = "int64",
) -> Any:
    if Tsplits != "int64":
        raise PortingError(
            f"{t.scope!r}: UnicodeDecodeWithOffsets with {Tsplits} splits, which TensorFlow itself cannot run"
        )
    return t.unicode_decode(
        x,
        input_encoding=_known(t, input_encoding),
        errors=errors.decode(),
        replacement=replacement_char,
        replace_control=replace_control_characters,
        offsets=True,
    )


@converter("UnicodeEncode")
def encode(
    t: Emit,
    codes: Any,
    splits: Any,
    *,
    output_encoding: bytes,
    errors: bytes = b"replace",
    replacement_char: int = 65533,
) -> Any:
    return t.unicode_encode(
        t.tensor(codes),
        t.tensor(splits),
        output_encoding=output_encoding.decode(),
        errors=errors.decode(),
        replacement=replacement_char,
    )


@converter("UnicodeScript")
def script(t: Emit, x: Any) -> Any:
    return t.unicode_script(t.tensor(x))


def _known(t: Emit, encoding: bytes) -> str:
    name = encoding.decode("utf-8", "replace")
    if not is_known(name):
        raise PortingError(
            f"{t.scope!r}: strings in the encoding {name!r} cannot be read here, only {_REFUSES.partition('than ')[2]}"
        )
    return name
