"""Fourier transforms against TensorFlow, and the spectrograms that `tf.signal` and Keras make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.witness import Case, case, check_case, check_function, run, tf
from torch_towers.errors import InputError
from torch_towers.graph.dtypes import torch_dtype

RNG = np.random.default_rng(0)
SOUND = RNG.normal(size=(2, 400)).astype(np.float32)
ROUNDING = (
    "a transform of n numbers is sums of n products, in another order: log2(n) eps times their root sum of squares"
)


def bound(x: np.ndarray) -> float:
    """What rounding can do in a Fourier transform: eps log2(n) ||x||, for the largest of the transforms."""
    eps = np.finfo(x.real.dtype).eps
    return float(4 * eps * np.log2(max(x.size, 2)) * np.sqrt((np.abs(x.astype(np.complex128)) ** 2).sum()))


def values(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    x = RNG.normal(size=shape)
    return (x + 1j * RNG.normal(size=shape)).astype(dtype) if np.dtype(dtype).kind == "c" else x.astype(dtype)


def complex_cases() -> list[Case]:
    rows: list[Case] = []
    for suffix in ("", "2D", "3D"):
        for prefix in ("FFT", "IFFT"):
            for dtype in (np.complex64, np.complex128):
                for shape in ((3, 8, 6, 7), (2, 1, 1, 1), (0, 4, 4, 4)):
                    x = values(*shape, dtype=dtype)
                    rows.append(case(f"{prefix}{suffix}", input=x, absolute=bound(x), reason=ROUNDING,
                                     label=f"{x.dtype}{shape}"))  # fmt: skip
            rows.append(case(f"{prefix}{suffix}", input=np.zeros((1, 4, 2, 2), np.complex64), label="zeros"))
    return rows


def real_cases() -> list[Case]:
    rows: list[Case] = []
    for rank, suffix in ((1, ""), (2, "2D"), (3, "3D")):
        for dtype, wide in ((np.float32, np.complex64), (np.float64, np.complex128)):
            attrs = {"Tcomplex": tf.as_dtype(wide)}
            x, z = values(2, 9, 8, 7, dtype=dtype), values(2, 9, 8, 5, dtype=wide)
            for last in (7, 6, 1):
                length = np.array([8, 8, last][3 - rank :], np.int32)
                rows.append(case(f"RFFT{suffix}", "fft_length", input=x, fft_length=length, absolute=bound(x), attrs=attrs,
                                 reason=ROUNDING, label=f"{x.dtype} {last}"))  # fmt: skip
            for last in (8, 7, 1):
                length = np.array([8, 8, last][3 - rank :], np.int32)
                rows.append(case(f"IRFFT{suffix}", "fft_length", input=z, fft_length=length, absolute=bound(z),
                                 attrs={"Treal": tf.as_dtype(dtype)}, reason=ROUNDING, label=f"{z.dtype} {last}"))  # fmt: skip
        length = np.array([4, 4, 4][3 - rank :], np.int32)
        rows.append(case(f"RFFT{suffix}", "fft_length", input=values(0, 4, 4, 4), fft_length=length, label="empty"))
        rows.append(case(f"RFFT{suffix}", input=values(2, 4, 4, 4), fft_length=length, batched=False, label="length fed",
                         absolute=1e-5, reason=ROUNDING))  # fmt: skip
    return rows


CASES = complex_cases() + real_cases()


@pytest.mark.parametrize("row", CASES, ids=str)
def test_conformance(row: Case) -> None:
    check_case(row)


def test_too_short_for_the_length() -> None:
    def transform(x: Any) -> Any:
        return tf.raw_ops.RFFT(input=x, fft_length=[16])

    program = check_function(transform, [{"x": values(2, 16)}], absolute=1e-4)
    with pytest.raises(InputError, match="Input dimension 1 must have length of at least 16 but got: 12"):
        run(program, {"x": values(2, 12)})
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have length of at least 16 but got: 12"):
        transform(values(2, 12))


def spectrograms() -> dict[str, Any]:
    def stft(x: Any) -> Any:
        return tf.signal.stft(x, 100, 40, fft_length=128)

    def power(x: Any) -> Any:
        return tf.abs(stft(x))

    def mfcc(x: Any) -> Any:
        mel = tf.signal.linear_to_mel_weight_matrix(20, 65, 8000, 80.0, 3800.0)
        return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(tf.matmul(power(x), mel) + 1e-6))

    return {
        "stft": stft,
        "padded": lambda x: tf.signal.stft(x, 128, 40, pad_end=True),
        "power": power,
        "mfcc": mfcc,
        "angle": lambda x: tf.math.angle(stft(x) + 100.0),
        "inverse": lambda x: tf.signal.inverse_stft(stft(x), 100, 40, 128),
        "dct": lambda x: tf.signal.dct(x, norm="ortho"),
        "idct": lambda x: tf.signal.idct(x),
        "mdct": lambda x: tf.signal.mdct(x, 80),
        "hilbert": lambda x: tf.signal.ifft(tf.signal.fft(tf.cast(x, tf.complex64))),
        "shift": lambda x: tf.signal.fftshift(tf.signal.rfft(x, [256])),
    }


@pytest.mark.parametrize("name", spectrograms())
def test_spectrograms(name: str) -> None:
    """Sums of 400 numbers around 1: float32 carries 1e-4 of them, and the logarithm of a small power amplifies it."""
    check_function(spectrograms()[name], [{"x": SOUND}, {"x": SOUND[:1]}], absolute=2e-4)


def test_the_mel_spectrogram_of_keras() -> None:
    keras = pytest.importorskip("keras")
    layer = keras.layers.MelSpectrogram(fft_length=128, sequence_stride=40, num_mel_bins=16, sampling_rate=8000)
    layer(SOUND)
    check_function(lambda x: layer(x), [{"x": SOUND}, {"x": SOUND[:1]}], absolute=2e-4)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_spectrograms_at_another_precision(dtype: str) -> None:
    program = check_function(spectrograms()["mfcc"], [{"x": SOUND}], absolute=2e-4)
    program = program.to(torch_dtype(dtype))
    (found,) = program(x=torch.from_numpy(SOUND).to(torch_dtype(dtype))).values()
    assert str(found.dtype) == f"torch.{dtype}"
