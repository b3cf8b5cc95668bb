"""Unicode over all code points, and over any bytes, against TensorFlow."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.witness import tf
from torch_towers.ops.strings import strings
from torch_towers.ops.unicode import lower_utf8, transcode, unicode_decode, unicode_script, upper_utf8

CODES = [code for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]


def test_case_of_every_code_point() -> None:
    """Alone, and in every place around a sigma where what it is decides whether the sigma is final."""
    forms = "{0} {0}Σ A{0}Σ AΣ{0} AΣ{0}A Σ{0}A\n"
    lines = [
        forms.format(chr(code)) for code in CODES if code < 0x20000 or 0xE0000 <= code < 0xE0200
    ]  # the rest: ideographs, private, nothing
    texts = ["".join(lines[i : i + 64]).encode() for i in range(0, len(lines), 64)]
    assert lower_utf8(texts) == tf.strings.lower(texts, "utf-8").numpy().tolist()
    assert [*lower_utf8(texts[:1]), *lower_utf8([])] == lower_utf8(texts)[:1], "one alone, and none"
    texts = ["".join(map(chr, CODES[i : i + 64])).encode() for i in range(0, len(CODES), 64)]
    assert lower_utf8(texts) == tf.strings.lower(texts, "utf-8").numpy().tolist()
    assert upper_utf8(texts) == tf.strings.upper(texts, "utf-8").numpy().tolist()


def test_marks_of_other_texts_do_not_matter() -> None:
    marks = "".join(map(chr, range(0x300, 0x370)))
    texts = [text.encode() for text in ("AΣ\u1734", f"AΣ\u1734A {marks}", f"Σ{marks}", "\u1734Σ")]
    assert lower_utf8(texts) == tf.strings.lower(texts, "utf-8").numpy().tolist()


def test_script_of_every_code_point() -> None:
    codes = np.arange(-5, 0x110005, dtype=np.int32)
    assert np.array_equal(unicode_script(torch.from_numpy(codes)).numpy(), tf.strings.unicode_script(codes).numpy())


pieces = st.one_of(
    st.text(max_size=6).map(str.encode),
    st.binary(max_size=6),
    st.sampled_from([b"\xe2\x82", b"\xed\xa0\x80", "Σ".encode(), b"\xf0\x9f\x98"]),
)
texts = st.lists(pieces, max_size=4).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6))
def test_any_bytes(batch: list[bytes]) -> None:
    assert lower_utf8(batch) == tf.strings.lower(batch, "utf-8").numpy().tolist()
    assert upper_utf8(batch) == tf.strings.upper(batch, "utf-8").numpy().tolist()
    x = strings(batch, (len(batch),))
    for encoding in ("UTF-8", "UTF-16-BE", "UTF-16-LE", "UTF-32-BE"):
        ours = unicode_decode(x, input_encoding=encoding, offsets=True)
        theirs = tf.raw_ops.UnicodeDecodeWithOffsets(input=batch, input_encoding=encoding)
        assert [part.tolist() for part in ours] == [part.numpy().tolist() for part in theirs]
    ours = transcode(x, input_encoding="UTF-8", output_encoding="UTF-8", errors="ignore", replace_control=True)
    theirs = tf.strings.unicode_transcode(batch, "UTF-8", "UTF-8", errors="ignore", replace_control_characters=True)
    assert ours.tolist() == theirs.numpy().tolist()
