"""The names of the ops of each number by itself: what a row becomes depends on no other row."""

from __future__ import annotations

ELEMENTWISE = frozenset(
    """abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor cast ceil clipped_line cos cosh
    digamma div div_no_nan elu equal erf erfc erfinv exp expm1 floor floor_div floor_mod gelu greater greater_equal hard_sigmoid
    hard_silu identity isfinite isinf isnan leaky_relu left_shift less less_equal lgamma log log1p log_sigmoid logical_and
    logical_not logical_or maximum minimum mish mul mul_no_nan neg not_equal ones_like pow reciprocal relu relu6 right_shift round
    rsqrt scaled_elu selu sigmoid sign silu sin sinh softplus softsign sqrt square squared_difference sub tan tanh trunc_div
    trunc_mod where wrap_negative xdivy xlogy zeros_like""".split()  # noqa: SIM905
)
"""Ops of each number by itself, with broadcasting."""
