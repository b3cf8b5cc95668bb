"""Fourier transforms, as `tf.signal` and the spectrogram layers write them."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.converters.array import sizes_of

Emit = ConvertingEmitter

RANKS = {"": 1, "2D": 2, "3D": 3}


def _complex(op: str, rank: int, inverse: bool) -> None:
    @converter(op)
    def convert(t: Emit, x: Any) -> Any:
        return t.fft(x, rank=rank, inverse=inverse)


def _real(suffix: str, rank: int) -> None:
    @converter(f"RFFT{suffix}", ignores=("Treal", "Tcomplex"))
    def forward(t: Emit, x: Any, lengths: Any) -> Any:
        return t.rfft(x, *sizes_of(t, lengths), rank=rank)

    @converter(f"IRFFT{suffix}", ignores=("Tcomplex",))
    def backward(t: Emit, x: Any, lengths: Any, *, Treal: str = "float32") -> Any:
        return t.irfft(x, *sizes_of(t, lengths), rank=rank, dtype=Treal)


for _suffix, _rank in RANKS.items():
    for _prefix, _inverse in (("FFT", False), ("IFFT", True)):
        _complex(f"{_prefix}{_suffix}", _rank, _inverse)
    _real(_suffix, _rank)
