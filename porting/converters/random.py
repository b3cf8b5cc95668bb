"""Random numbers: refused, unless the draw cannot affect the result."""

from __future__ import annotations

import math
from typing import Any

import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant, Dimensions, Value
from porting.errors import DrawsError
from porting.registry import DRAWS
from torch_towers.graph.dtypes import torch_dtype

Emit = ConvertingEmitter

REFUSED = (
    "RandomStandardNormal", "TruncatedNormal", "RandomUniformInt", "RandomShuffle", "RandomGammaV3", "RandomPoissonV2",
    "ParameterizedTruncatedNormal", "StatelessRandomUniform", "StatelessRandomUniformV2",
    "StatelessRandomNormal", "StatelessRandomNormalV2", "StatelessRandomUniformInt", "StatelessRandomUniformIntV2",
    "StatelessTruncatedNormal", "StatelessTruncatedNormalV2", "StatelessRandomGetKeyCounter", "StatelessRandomGetAlg",
    "StatelessRandomGetKeyCounterAlg",
)  # fmt: skip
SAMPLES = ("Multinomial", "StatelessMultinomial", "StatelessMultinomialV2")
"""Draws that are not leftovers of training: the model's result is a sample."""


class Uniform(Value):
    """Random numbers from `[low, high)`, drawn at each call. Any use of the numbers themselves is refused."""

    __slots__ = ("high", "low", "scope", "sizes")

    def __init__(self, scope: str, sizes: tuple[Any, ...], dtype: str, low: float, high: float) -> None:
        for name, value in (
            ("dtype", dtype),
            ("shape", None),
            ("scope", scope),
            ("sizes", sizes),
            ("low", low),
            ("high", high),
        ):
            object.__setattr__(self, name, value)

    @property
    def ref(self) -> str:  # type: ignore[override]
        raise DrawsError(
            f"{self.scope!r} draws random numbers and the outputs depend on them, so two runs of TensorFlow differ: "
            "export the model with training=False"
        )

    @classmethod
    def added(cls, a: Any, b: Any) -> Uniform:
        """`a + b`, if one of them is a constant number."""
        self, number = cls._with_number(a, b)
        return Uniform(self.scope, self.sizes, self.dtype or "", self.low + number, self.high + number)

    @classmethod
    def multiplied(cls, a: Any, b: Any) -> Uniform:
        """`a * b`, if one of them is a constant number above 0."""
        self, number = cls._with_number(a, b)
        if number <= 0:
            _ = self.ref
        return Uniform(self.scope, self.sizes, self.dtype or "", self.low * number, self.high * number)

    @staticmethod
    def _with_number(a: Any, b: Any) -> tuple[Uniform, float]:
        self, other = (a, b) if isinstance(a, Uniform) else (b, a)
        if not (isinstance(other, Constant) and other.shape == ()):
            _ = self.ref
        return self, float(other.python())

    def floor(self, t: Emit) -> Any:
        """The only integer that the interval rounds down to, if any: dropout with rate 0 keeps everything."""
        if math.floor(self.low) != math.ceil(self.high) - 1:
            _ = self.ref
        number = Constant(torch.tensor(math.floor(self.low), dtype=torch_dtype(self.dtype or "")))
        return t.broadcast_to(number, *self.sizes)


@converter("RandomUniform", ignores=("seed", "seed2"), refuses="numbers that affect the result")
def random_uniform(t: Emit, shape: Dimensions, *, dtype: str) -> Uniform:
    return Uniform(t.scope, shape, dtype, 0.0, 1.0)


def _refused(op: str, advice: str) -> None:
    @converter(op, refuses=DRAWS)
    def convert(t: Emit, *operands: Any, **attrs: Any) -> Any:
        raise DrawsError(f"{op} {t.scope!r} draws random numbers, so two runs of TensorFlow differ: {advice}")


for _op in REFUSED:
    _refused(_op, "export with training=False")
for _op in SAMPLES:
    _refused(
        _op,
        "port an entry that returns what it samples from (the logits), and sample from that (torch.multinomial), or take "
        "its argmax",
    )
