"""Values of rows that unfold to more than they weigh: images that say they are large, and compressed texts."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable

import pytest

from tests.budgets import row_values
from tests.budgets.row_values import of_pillow, png
from tests.fuzz.harness import outcomes

pytest.importorskip("PIL", reason="the extra [images]")
pytest.importorskip("simplejpeg", reason="the extra [images]")


def _zeros(kind: bytes, count: int) -> bytes:
    stream = zlib.compressobj(9, wbits=31 if kind == b"GZIP" else 15)
    return kind + b"\n" + b"".join(stream.compress(bytes(1 << 20)) for _ in range(count)) + stream.flush()


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG": (lambda: b"image\n" + png(200, 100, 100), "answered"),
    "a PNG of 2^62 pixels": (lambda: b"image\n" + png((1 << 31) - 1, (1 << 31) - 1, 0), "cannot be read"),
    "a PNG of 60,000 x 60,000 pixels": (lambda: b"image\n" + png(60_000, 60_000, 10), "pixels. exceeds limit"),
    "a JPEG of 65,500 x 65,500 pixels": (lambda: b"image\n" + of_pillow("JPEG", 0, ">HH", 65_500, 65_500), "is truncated: its header says 65500 x 65500 pixels"),
    "a JPEG of 2^29 pixels": (lambda: b"image\n" + of_pillow("JPEG", 0, ">HH", 1 << 15, 1 << 14) + bytes(2 << 20), "is too large"),
    "a GIF of 65,535 x 65,535 pixels": (lambda: b"image\n" + of_pillow("GIF", 6, "<HH", 65_535, 65_535), "pixels. exceeds limit"),
    "a BMP of 60,000 x 60,000 pixels": (lambda: b"image\n" + of_pillow("BMP", 18, "<ii", 60_000, 60_000), "truncated: its header says 60000 x 60000 pixels"),
    "64 MB of ZLIB": (lambda: _zeros(b"ZLIB", 64), "answered"),
    "65 MB of ZLIB": (lambda: _zeros(b"ZLIB", 65), "more than the limit of 67108864 bytes"),
    "512 MB of GZIP": (lambda: _zeros(b"GZIP", 512), "more than the limit of 67108864 bytes"),
    "GZIP without end": (lambda: _zeros(b"GZIP", 1)[:-9], "is not GZIP data: it is truncated"),
}  # fmt: skip


@functools.cache
def found() -> dict[str, str]:
    return outcomes(row_values.__name__, {name: make() for name, (make, _) in CASES.items()})


@pytest.mark.parametrize("case", CASES)
def test_a_value_costs_no_more_than_it_weighs(case: str) -> None:
    said = found().get(case, "the process ended")
    assert re.match("answered|refused: ", said), said
    assert re.search(CASES[case][1], said), said
