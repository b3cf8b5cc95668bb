"""Unicode as TensorFlow's ICU sees it."""

from __future__ import annotations


def lower_utf8(text: bytes) -> bytes:
    """Unicode lower case, final sigma included. What is not UTF-8 becomes U+FFFD, and text ends at a NUL, as in TensorFlow."""
    return text.partition(b"\0")[0].decode("utf-8", "replace").lower().encode()


def upper_utf8(text: bytes) -> bytes:
    """Unicode upper case ("ß" is "SS"), with U+FFFD and NUL as in `lower_utf8`."""
    return text.partition(b"\0")[0].decode("utf-8", "replace").upper().encode()
