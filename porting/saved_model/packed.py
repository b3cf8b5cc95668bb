"""Packed strings: the lengths of all as varints, then the bytes of all. Checkpoints and tf.data's constants have them.

Read some at a time with numpy, because a file of 100 MB may hold 100 million empty strings.
Source: DecodeStringList, tensorflow/core/platform/tensor_coding.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from porting.errors import CorruptModelError

_BLOCK = 1 << 16  # bytes of lengths at a time
_LONGEST = 9  # bytes of a varint below 2**63


def packed_lengths(data: bytes | memoryview, count: int, where: str) -> Iterator[tuple[np.ndarray, int]]:
    """The lengths of `count` strings at the start of `data`, int64, a block at a time, and the position after each block.

    Raises CorruptModelError for a varint that is truncated, padded, or larger than the data.
    """
    at = 0
    while count:
        block = np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - at), at) if at < len(data) else np.empty(0, "u1")
        ends = np.flatnonzero(block < 0x80)[:count]
        starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        sizes = ends - starts + 1
        longest = int(sizes.max(initial=0))
        if not 0 < longest <= _LONGEST or ((block[ends] == 0) & (sizes > 1)).any():
            raise CorruptModelError(
                f"{where}: the lengths of its strings end early or are damaged, after byte {at}: {count} are left"
            )
        lengths = np.zeros(len(ends), np.int64)
        for i in range(longest):
            longer = sizes > i
            lengths[longer] |= (block[starts[longer] + i] & 0x7F).astype(np.int64) << 7 * i
        if int(lengths.max()) > len(data):
            raise CorruptModelError(
                f"{where}: a string of {lengths.max()} bytes, and the strings have {len(data)} in all"
            )
        at += int(ends[-1]) + 1
        count -= len(ends)
        yield lengths, at


def packed_strings(data: bytes | memoryview, at: int, lengths: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The `count` strings of these lengths, one after the other from position `at`: an object array `[count]` of bytes."""
    strings = np.full(count, b"", object)
    done = 0
    for block in lengths:
        ends = np.cumsum(block)
        some = np.flatnonzero(block)
        text, start = bytes(data[at : at + int(ends[-1])]), 0
        strings[done + some] = [text[start : (start := end)] for end in ends[some].tolist()]
        at += len(text)
        done += len(block)
    return strings
