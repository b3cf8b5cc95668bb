"""Every op returns floats at the precision of its operands: each op of the table, at each float dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from torch_towers import layers as _layers  # noqa: F401  (fills MODULES)
from torch_towers import ops as _ops  # noqa: F401  (fills OPS)
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.registry import OPS

X = torch.tensor([[0.25, 0.5, 0.75, 0.125], [0.5, 0.25, 0.375, 0.875], [0.75, 0.625, 0.5, 0.25]])
Y = X.flip(0)
IMAGE = (torch.arange(2 * 6 * 5 * 3).reshape(2, 6, 5, 3) % 13) / 16.0
KERNEL = (torch.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4) % 5) / 8.0
ROW = X[0]
IDS = torch.tensor([2, 0, 1])
PAIRS = torch.tensor([[0, 1], [1, 0], [2, 3]])
SHAPE = torch.tensor([3, 4])
VALUES = torch.tensor([0.25, 0.5, 0.75])
SPLITS = (torch.tensor([0, 1, 3]),)
LIST = [X, Y]
POSITIVE = torch.tensor([[2.0, 0.5, 0.25], [0.5, 1.5, 0.5], [0.25, 0.5, 1.0]])
SQUARE = torch.tensor([[1.0, 0.5, 0.25], [0.25, -1.0, 0.5], [0.5, 0.25, 0.75]])
BANDS = torch.tensor([[0.5, 0.25, 0.0], [1.0, 2.0, 1.5], [0.0, 0.25, 0.5]])
WEIGHTS = (torch.arange(7 * 16).reshape(7, 16) % 5 - 2) / 8.0
LSTM = (Y[:, 1:], X[:, 1:], WEIGHTS[:7, :12], VALUES, VALUES, VALUES, WEIGHTS[0, :12])
"""The last cell and output, the weights, the three of the peepholes, and the bias, of 3 features for inputs of 4."""
CELL = {"order": "icfo", "forget_bias": 1.0, "clip": 3.0, "peephole": True}
PATCHES = {"size": (2, 2), "strides": (2, 1), "padding": "SAME"}
BESSEL = """i0 i0e i1 i1e modified_bessel_k0 modified_bessel_k1 scaled_modified_bessel_k0 scaled_modified_bessel_k1"""


def body(*operands: Any) -> tuple[Any, ...]:
    return tuple(operand * 2 for operand in operands)


UNARY = """neg abs sign square sqrt rsqrt reciprocal exp expm1 log log1p erf erfc erfinv ndtri lgamma digamma sin cos tan asin acos atan sinh
cosh tanh asinh atanh sigmoid softplus floor ceil round isnan isinf isfinite relu relu6 elu selu softsign softmax log_softmax silu mish
hard_sigmoid hard_silu log_sigmoid identity zeros_like ones_like squeeze_all rank conj matrix_transpose nonzero nonnegative
where_true""".split()  # noqa: SIM905
BINARY = """sub mul div less less_equal greater greater_equal floor_div trunc_div floor_mod trunc_mod div_no_nan mul_no_nan xdivy xlogy
xlog1py maximum minimum pow atan2 squared_difference add equal not_equal weighted""".split()  # noqa: SIM905
REDUCE = ("reduce_sum", "reduce_mean", "reduce_prod", "reduce_max", "reduce_min", "euclidean_norm")

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((name, (X,), {}) for name in UNARY),
    *((name, (X, Y), {}) for name in BINARY if name in OPS),
    *((name, (X, 0.5), {}) for name in BINARY if name in OPS),
    *((name, (X,), {"axes": (1,), "keepdim": keep}) for name in REDUCE for keep in (True, False)),
    *(("gelu", (X,), {"form": form}) for form in ("erf", "erfc", "tanh")),
    ("acosh", (X + 1,), {}), ("clipped_line", (X,), {"slope": 0.2, "offset": 0.5}), ("scaled_elu", (X,), {"alpha": 0.5}),
    ("leaky_relu", (X,), {"alpha": 0.25}), ("bias_add", (X, ROW), {}), ("bias_add", (IMAGE, VALUES), {"axis": 3}),
    ("batch_norm", (IMAGE, VALUES, VALUES, VALUES, VALUES), {"epsilon": 1e-3, "axis": 3}),
    ("batch_statistics", (IMAGE,), {"axis": 3}),
    ("local_response_norm", (IMAGE,), {"radius": 1, "bias": 1.0, "alpha": 0.5, "beta": 0.5}),
    ("argmax", (X,), {"axis": 1, "dtype": "int64"}), ("argmin", (X,), {"axis": 1, "dtype": "int32"}),
    ("cumsum", (X,), {"axis": 1}), ("cumsum", (X,), {"axis": 1, "exclusive": True, "reverse": True}),
    ("cumprod", (X,), {"axis": 1}), ("cumprod", (X,), {"axis": 0, "exclusive": True, "reverse": True}),
    ("top_k", (X, 2), {}), ("weighted_sum", (X[None], X[:1, :3]), {}), ("weighted_sum", (X[None], torch.tensor([[True, False, True]])), {}),
    *(("unsorted_segment_reduce", (X, IDS, 3), {"reduction": kind}) for kind in ("sum", "prod", "max", "min")),
    *(("segment_reduce", (X, torch.tensor([0, 0, 2])), {"reduction": kind}) for kind in ("sum", "mean", "prod", "max", "min")),
    ("bincount", (torch.tensor([[1, 1, 2]]), 4, X[:1, :3]), {"binary_output": False}),
    ("ragged_bincount", (torch.tensor([0, 1, 3]), torch.tensor([1, 1, 2]), 4, VALUES), {"binary_output": False}),
    ("sparse_bincount", (PAIRS, torch.tensor([1, 1, 2]), SHAPE, 4, VALUES), {"binary_output": False}),
    ("matmul", (X, Y.T), {}), ("einsum", (X, Y), {"equation": "ij,kj->ik"}), ("cross", (X[:, :3], Y[:, :3]), {}),
    ("band_part", (X,), {"lower": 1, "upper": 0}), ("diagonal", (X,), {}), ("diag_embed", (ROW,), {}),
    ("diagonal_scatter", (X, VALUES), {}), ("where", (X > 0.3, X, Y), {}),
    ("bitcast", (X,), {"dtype": "int32", "reads": "f32"}), ("bitcast", (IDS.int(),), {"dtype": "float32", "gives": "f32"}),
    ("cast", (X,), {"dtype": "float32"}), ("cast", (IDS,), {"dtype": "float32"}), ("cast", (X > 0.3,), {"dtype": "float32"}),
    ("to_integer", (X * 4,), {"dtype": "int64"}), ("truncate_mantissa", (X.double(),), {"dtype": "float32"}),
    ("bucketize", (X,), {"boundaries": (0.3, 0.6)}), ("searchsorted", (X.sort(1)[0], Y), {"right": True, "dtype": "int32"}),
    ("reshape", (X, 4, 3), {}), ("transpose", (X,), {"perm": (1, 0)}), ("unsqueeze", (X,), {"axis": 0}), ("squeeze", (X[None],), {"axes": (0,)}),
    ("broadcast_to", (ROW, 2, 4), {}), ("tile", (X, 2, 1), {}), ("concat", (X, Y), {"axis": 0}), ("stack", (X, Y), {"axis": 0}),
    ("unstack", (X,), {"axis": 0, "num": 3}), ("split_sizes", (X,), {"axis": 1, "lengths": (1, 3)}), ("chunk", (X,), {"axis": 1, "num": 2}),
    ("slice", (X, 0, 2), {"axis": 0}), ("narrow", (X, 1, 2), {"axis": 0}), ("select", (X, 1), {"axis": 0}), ("flip", (X,), {"axes": (1,)}),
    ("roll", (X,), {"shifts": (1,), "axes": (1,)}), ("reverse_sequence", (X, torch.tensor([1, 2, 3])), {"axis": 1, "batch_axis": 0}),
    ("gather", (X, IDS), {}), ("gather_nd", (X, PAIRS), {}), ("scatter_nd", (X, PAIRS, VALUES), {"mode": "add"}),
    ("one_hot", (IDS, 4, torch.tensor(1.0), torch.tensor(0.0)), {"axis": -1}),
    ("arange", (0, 5, 1), {"dtype": "float32"}), ("linspace", (torch.tensor(0.0), torch.tensor(1.0)), {"num": 5}),
    ("sizes_tensor", (3, 4), {"dtype": "float32"}),
    ("pad", (X, 0.5, 1, 0, 0, 2), {}), ("mirror_pad", (X,), {"paddings": ((1, 1), (0, 0)), "mode": "reflect"}),
    ("conv", (IMAGE, KERNEL), {"strides": (1, 1), "padding": "SAME", "dilations": (1, 1), "channels_last": True}),
    ("conv_transpose", (IMAGE, KERNEL.transpose(2, 3), 6, 5), {"strides": (1, 1), "padding": "SAME", "dilations": (1, 1), "channels_last": True}),
    ("max_pool", (IMAGE,), {"size": (2, 2), "strides": (2, 2), "padding": "SAME", "channels_last": True}),
    ("avg_pool", (IMAGE,), {"size": (2, 2), "strides": (2, 2), "padding": "SAME", "channels_last": True}),
    ("depth_to_space", (IMAGE[..., :1].expand(2, 6, 5, 4),), {"block": 2, "channels_last": True}),
    ("space_to_depth", (IMAGE[:, :, :4],), {"block": 2, "channels_last": True}),
    ("space_to_batch", (IMAGE, 0, 0, 1, 0), {"block": (2, 2)}), ("batch_to_space", (KERNEL.reshape(4, 3, 2, 2), 0, 0, 0, 0), {"block": (2, 2)}),
    ("dynamic_stitch", ((IDS,), (X,), torch.tensor([1, 2, 0])), {}), ("dynamic_partition", (X, torch.tensor([0, 1, 0])), {"count": 2}),
    ("unique", (VALUES,), {"axis": None, "dtype": "int32"}), ("repeat_rows", (X, IDS), {}),
    *((name, (image, 4, 7), {"align_corners": False, "half_pixel_centers": half}) for half in (True, False)
      for name, image in (("resize_bilinear", IMAGE), ("resize_nearest", IMAGE), ("resize_bicubic", IMAGE))),
    ("resize_area", (IMAGE, 4, 3), {"align_corners": False}),
    ("scale_and_translate", (IMAGE, 4, 3, torch.tensor([0.5, 0.75]), torch.tensor([0.0, 0.25])), {"kernel": "lanczos3", "antialias": True}),
    *(("crop_and_resize", (IMAGE, torch.tensor([[0.0, 0.25, 0.5, 1.5]]), torch.tensor([1]), 3, 3), {"method": method, "extrapolation_value": 0.5})
      for method in ("bilinear", "nearest")),
    ("adjust_contrast", (IMAGE, 0.5), {}), ("rgb_to_hsv", (IMAGE,), {}), ("hsv_to_rgb", (IMAGE,), {}), ("adjust_hue", (IMAGE, 0.25), {}),
    ("adjust_saturation", (IMAGE, 0.5), {}),
    ("cond", (True, X), {"then_branch": body, "else_branch": body}),
    ("map_steps", (2, X), {"body": lambda step, x: (x[step] * 2,), "results": 1, "threads": False}),
    ("while_loop", (X,), {"cond": lambda x: (x.sum() < 20,), "body": body, "carried": 1}),
    ("list_from_tensor", (X,), {}), ("list_stack", (LIST,), {"dtype": "float32", "shape": (3, 4)}),
    ("list_stack", ([None, X],), {"dtype": "float32", "shape": (3, 4)}), ("list_get", ([None, X], 0), {"dtype": "float32", "shape": (3, 4)}),
    ("list_pop", (LIST,), {"dtype": "float32", "shape": (3, 4)}), ("list_gather", (LIST, torch.tensor([1])), {"dtype": "float32", "shape": (3, 4)}),
    ("list_concat", (LIST,), {"dtype": "float32", "shape": (3, 4)}), ("list_split", (X, torch.tensor([1, 2])), {}),
    ("list_set", (LIST, 0, Y), {}), ("list_append", (LIST, Y), {}), ("list_extend", (LIST, LIST), {}),
    ("sparse_to_dense", (PAIRS, VALUES, torch.tensor(0.5), 3, 4), {"validate": True}),
    ("sparse_fill_empty_rows", (PAIRS[:2], VALUES[:2], SHAPE, torch.tensor(0.5)), {}), ("sparse_reorder", (PAIRS, VALUES, SHAPE), {}),
    ("sparse_concat", ((PAIRS, PAIRS), (VALUES, VALUES), (SHAPE, SHAPE)), {"axis": 0}),
    ("sparse_slice", (PAIRS, VALUES, SHAPE, torch.tensor([0, 0]), torch.tensor([2, 4])), {}),
    ("sparse_matmul", (PAIRS, VALUES, SHAPE, X.T.contiguous()), {"adjoint_a": False, "adjoint_b": False}),
    ("sparse_add_to_dense", (PAIRS, VALUES, SHAPE, X), {}),
    *(("sparse_dense_values", (PAIRS, VALUES, SHAPE, X), {"function": name}) for name in ("mul", "div", "add")),
    ("sparse_add", (PAIRS, VALUES, SHAPE, PAIRS, VALUES, SHAPE, 0), {}),
    ("sparse_reduce", (PAIRS, VALUES, SHAPE), {"axes": (1,), "keep_dims": False, "reduction": "sum"}),
    ("sparse_reduce_sparse", (PAIRS, VALUES, SHAPE), {"axes": (1,), "keep_dims": False, "reduction": "max"}),
    ("ragged_to_tensor", (VALUES, torch.tensor(0.5), SPLITS, -1, -1), {"types": ("ROW_SPLITS",)}),
    ("ragged_gather", (SPLITS, VALUES, torch.tensor([1, 0])), {"rank": 1}),
    ("ragged_range", (torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.5])), {"dtype": "int64"}),
    ("ragged_to_sparse", (SPLITS, VALUES), {}), ("ragged_fill_empty_rows", (torch.tensor([0, 2, 2]), VALUES, 3, torch.tensor(0.5)), {}),
    ("repeat_each", (X,), {"count": 2, "axis": 0}), ("rotate", (X, Y, ROW), {}),
    ("join_last", (X[None],), {"count": 2}), ("split_last", (X,), {"sizes": (2, 2)}),
    *(("attention", (X[None, None], Y[None, None], X[None, None], *mask), {"scale": 0.5})
      for mask in ((), (torch.tensor([[True, False, True]]),), (X[:, :3],))),
    *((name, (X,), {}) for name in BESSEL.split()), *((name, (X + 1, Y), {}) for name in ("gammainc", "gammaincc", "nextafter")),
    ("approximate_equal", (X, Y), {"tolerance": 0.3}), ("in_top_k", (X, IDS, 2), {}), ("nth_element", (X, 1), {"largest": True}),
    *(("cumulative_logsumexp", (X,), {"axis": 1, "exclusive": exclusive, "reverse": exclusive}) for exclusive in (False, True)),
    ("histogram_fixed_width", (X, torch.tensor([0.0, 1.0]), 4), {"dtype": "int32"}), ("unravel_index", (IDS, SHAPE), {}),
    ("softmax_cross_entropy", (X, Y), {}), ("sparse_softmax_cross_entropy", (X, IDS), {}),
    *((name, (POSITIVE,), {}) for name in ("cholesky", "determinant", "singular_values", "hermitian_eigenvalues", "matrix_exponential")),
    ("log_determinant", (SQUARE,), {}), ("lu", (SQUARE,), {"dtype": "int32"}),
    *(("matrix_inverse", (SQUARE,), {"adjoint": adjoint}) for adjoint in (False, True)),
    *(("matrix_solve", (SQUARE, X), {"adjoint": adjoint}) for adjoint in (False, True)),
    *(("triangular_solve", (SQUARE, X), {"lower": lower, "adjoint": lower}) for lower in (False, True)),
    *(("banded_triangular_solve", (BANDS[1:], X), {"lower": True, "adjoint": adjoint}) for adjoint in (False, True)),
    ("least_squares", (X.T, Y.T, torch.tensor(0.5, dtype=torch.float64)), {}), ("least_squares", (X, Y, torch.tensor(0.5, dtype=torch.float64)), {}),
    ("tridiagonal_matmul", (BANDS[:1], BANDS[1:2], BANDS[2:], X), {}), ("tridiagonal_solve", (BANDS, X), {}),
    ("fft", (torch.complex(X, Y),), {"rank": 1}), ("fft", (torch.complex(X, Y),), {"rank": 2, "inverse": True}),
    ("rfft", (X, 4), {"rank": 1}), ("rfft", (X, 3, 4), {"rank": 2}), ("irfft", (torch.complex(X, Y), 6), {"rank": 1, "dtype": "float32"}),
    *(("fake_quant", (X, low, 0.7), {"steps": (0, 255), "by_inverse": by_inverse}) for low, by_inverse in ((0.1, True), (-ROW, False))),
    ("quantize_dequantize", (X, torch.tensor(-1.0), torch.tensor(0.75)), {"quanta": (-127, 127), "half_up": True, "clamps": True, "axis": -1}),
    ("lstm_block_cell", (X, *LSTM), CELL), ("block_lstm", (torch.tensor(2), torch.stack([X, Y]), *LSTM), CELL),
    ("gru_block_cell", (X, X[:, 1:], WEIGHTS[:, :6], WEIGHTS[:, 6:9], WEIGHTS[0, :6], VALUES), {}),
    ("extract_patches", (IMAGE,), {**PATCHES, "dilations": (1, 2)}), ("max_pool_argmax", (IMAGE,), {**PATCHES, "dtype": "int64", "batch_counts": True}),
    ("morphological_dilation", (IMAGE, KERNEL[..., 0]), {"strides": (2, 1), "dilations": (1, 1), "padding": "SAME"}),
    ("buckets_up_to", (X, VALUES), {}), ("buckets_below", (X, VALUES), {}), ("list_diff", (ROW, VALUES), {"dtype": "int32"}),
    ("count_sparse", (torch.tensor([1, 1, 2]), IDS, 3, VALUES), {"rank": 2, "binary": False, "shortest": 0, "longest": 0}),
    ("sparse_softmax", (PAIRS, VALUES, SHAPE), {}), ("roll_by", (X, 1), {"axes": (1,)}),
    *(("sparse_extreme", (PAIRS, VALUES, SHAPE, PAIRS.flip(0), VALUES, SHAPE), {"largest": largest}) for largest in (True, False)),
]  # fmt: skip

OTHERS = """size size_add size_sub size_mul size_floordiv size_mod size_max size_min size_less shape numel element item in_range in_shape branch_index
invert_permutation wrap_negative stitch_sources logical_not logical_and logical_or reduce_all reduce_any bitwise_not bitwise_and bitwise_or
bitwise_xor left_shift right_shift list_reserve list_resize list_length sparse_reshape sparse_split segment_chunks sparse_bags
sparse_segment_reduce list_scatter population_count rows_of rows_of_splits ragged_to_variant ragged_from_variant""".split()  # noqa: SIM905
"""Ops of integers, sizes and truth; and those that only move what they are given, or whose operands another op makes."""

BITS = ("real", "imag", "angle", "complex")
"""Complex numbers exist at float32 and float64 alone: a tower with one runs in these."""


WIDE = ("batch_statistics",)
"""Ops whose results are float32 at least: a sum of squares overflows float16."""


def followed(dtype: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """What `dtype` is in a run at `wanted`: complex numbers are of float32 or float64."""
    if dtype == torch.complex64:
        return torch.promote_types(wanted, dtype)
    return wanted if dtype == torch.float32 else dtype


def converted(value: Any, dtype: torch.dtype) -> Any:
    """`value` with `dtype` in the place of float32."""
    if isinstance(value, Tensor):
        return value.to(followed(value.dtype, dtype))
    if isinstance(value, (tuple, list)):
        return type(value)(converted(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: converted(item, dtype) for key, item in value.items()}
    return str(dtype).removeprefix("torch.") if isinstance(value, str) and value == "float32" else value


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for item in value for part in tensors(item)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("number", range(len(CALLS)), ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(CALLS)])
def test_floats_follow(number: int, dtype: str) -> None:
    name, operands, attrs = CALLS[number]
    function, wanted = OPS[name].function, TORCH_DTYPES[dtype]
    expected = tensors(function(*operands, **attrs))
    found = tensors(function(*converted(operands, wanted), **converted(attrs, wanted)))
    assert len(found) == len(expected) > 0
    if name in WIDE:
        wanted = torch.promote_types(wanted, torch.float32)
    # Every number here is small and exact in each of these; a result is rounded a few times on its way.
    bound = 64 * max(torch.finfo(wanted).eps, torch.finfo(torch.float32).eps)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == followed(other.dtype, wanted)
        wide = torch.promote_types(other.dtype, torch.float64)
        torch.testing.assert_close(one.to(wide), other.to(wide), rtol=bound, atol=bound, equal_nan=True)


def test_every_op_is_here() -> None:
    named = {name for name, _, _ in CALLS}.union(OTHERS, BITS)
    assert {name for name, entry in OPS.items() if entry.stage != "host"} - named == set()
    assert named - OPS.keys() == set()


@pytest.mark.parametrize("dtype", FLOATS)
def test_bits_are_those_of_the_graphs_own_float(dtype: str) -> None:
    """A quarter, at any precision, has the bits that it has in float32."""
    bits = OPS["bitcast"].function(torch.tensor([0.25], dtype=TORCH_DTYPES[dtype]), dtype="int32", reads="f32")
    assert bits.tolist() == [0x3E800000]
    back = OPS["bitcast"].function(bits, dtype=dtype, gives="f32")
    assert back.dtype == TORCH_DTYPES[dtype] and back.tolist() == [0.25]
