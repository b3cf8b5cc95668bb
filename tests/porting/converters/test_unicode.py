"""Every Unicode op against TensorFlow, bit-exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from tests.witness import Case, as_array, case, check_case

BROKEN = b"a\xffb\x01\xe2\x82\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80\xf0\x9f\x98\x80\x00z\xe2"
TEXTS = as_array(["", "abc", "é日😀", b"\xef\xbb\xbfA", BROKEN, "\u0085\u2028\x7f\x1f"])
WIDE = as_array([b"", b"\x00a\xd8\x00\x00b\xdc\x00", b"\xd8\x3d\xde\x00", b"\xfe\xff\x00a\x00", b"\xd8\x3d\xd8", b"\x00\x00\x00a\x00\x11\x00\x00\x00\x00\xd8\x00\x00\x01",
                 b"\xd8\x00\xd8\x00\xdc\x00", b"\x3d\xd8\x00\xde\x00"])  # fmt: skip
CODES = np.array([97, 0xD800, 0x110000, -1, 0x1F600, 0, 0xFFFD, 0xFFFE, 0xDC00], np.int32)
SPLITS = np.array([0, 2, 5, 5, 9])
BYTES = as_array([bytes([byte]) for byte in range(256)])
ONE_BYTE = ["ISO-8859-1", "latin1", "US-ASCII", "windows-1250", "windows-1251", "windows-1252", "cp1252", "windows-1254", "windows-1256", "windows-1258",
            "KOI8-R", "KOI8-U", "macintosh", *[f"ISO-8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)]]  # fmt: skip


def _errors(op: str, **attrs: Any) -> list[Case]:
    rows = [
        (errors, char, control)
        for errors in ("replace", "ignore")
        for char in (65533, 63, 0x1F600)
        for control in (False, True)
    ]
    return [
        case(
            op,
            input=TEXTS,
            attrs={"errors": errors, "replacement_char": char, "replace_control_characters": control, **attrs},
        )
        for errors, char, control in rows
    ]


CASES: list[Case] = [
    *_errors("UnicodeDecode", input_encoding="UTF-8"),
    *_errors("UnicodeDecodeWithOffsets", input_encoding="UTF-8"),
    *[row for output in ("UTF-8", "UTF-16-BE", "UTF-32-BE") for row in _errors("UnicodeTranscode", input_encoding="UTF-8", output_encoding=output)],
    *[case(op, input=TEXTS[:3], attrs={"input_encoding": "utf8", "errors": "strict"}) for op in ("UnicodeDecode", "UnicodeDecodeWithOffsets")],
    case("UnicodeTranscode", input=TEXTS[:4], attrs={"input_encoding": "UTF-8", "output_encoding": "UTF-8", "errors": "strict"}),
    case("UnicodeTranscode", input=TEXTS.reshape(3, 2), attrs={"input_encoding": "UTF-8", "output_encoding": "UTF-16-BE", "replacement_char": 0xD800}),
    case("UnicodeTranscode", input=TEXTS, attrs={"input_encoding": "UTF-8", "output_encoding": "UTF-8", "replacement_char": 0xD800}),
    case("UnicodeDecode", input=TEXTS.reshape(3, 2), attrs={"input_encoding": "UTF-8", "Tsplits": np.int32}),
    case("UnicodeDecode", input=as_array("ab"), attrs={"input_encoding": "UTF-8"}),
    *[case("UnicodeDecodeWithOffsets", input=WIDE, attrs={"input_encoding": name, "replacement_char": 1})
      for name in ("UTF-16-BE", "UTF-16-LE", "UTF-32-BE", "UTF-32-LE", "UTF-16BE")],
    *[case("UnicodeDecodeWithOffsets", input=BYTES, attrs={"input_encoding": name, "replacement_char": 0x10FFFF}) for name in ONE_BYTE],
    *[case("UnicodeEncode", input_values=CODES, input_splits=SPLITS, batched=False, attrs={"output_encoding": output, "errors": errors, "replacement_char": char})
      for output in ("UTF-8", "UTF-16-BE", "UTF-32-BE") for errors in ("replace", "ignore") for char in (65533, 63)],
    case("UnicodeEncode", input_values=CODES[4:8], input_splits=np.array([0, 4], np.int32), batched=False, attrs={"output_encoding": "UTF-8", "errors": "strict"}),
    case("UnicodeScript", input=np.array([[65, 0x3B1, -1], [0x110000, 0xD800, 0x10FFFF]], np.int32)),
]  # fmt: skip


@pytest.mark.parametrize("row", CASES, ids=str)
def test_equals_tensorflow(row: Case) -> None:
    check_case(row)


def test_unknown_encoding_is_refused() -> None:
    with pytest.raises(PortingError, match="'Shift_JIS' cannot be read"):
        check_case(case("UnicodeDecode", input=TEXTS, attrs={"input_encoding": "Shift_JIS"}))
