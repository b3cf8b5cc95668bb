"""Activations and normalizations."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError

Emit = ConvertingEmitter

ACTIVATIONS = {
    "Elu": "elu", "Selu": "selu", "Softsign": "softsign", "Softplus": "softplus",
    "Softmax": "softmax", "LogSoftmax": "log_softmax",
}  # fmt: skip


def _activation(op: str, name: str) -> None:
    @converter(op)
    def convert(t: Emit, x: Any) -> Any:
        return t.call(name, x)


for _op, _name in ACTIVATIONS.items():
    _activation(_op, _name)


@converter("Relu")
def relu(t: Emit, x: Any, *, no_nan: bool = False) -> Any:
    """`no_nan` is the porter's own attribute: oneDNN maps NaN to 0 here."""
    return t.relu(x, no_nan=True) if no_nan else t.relu(x)


@converter("Relu6")
def relu6(t: Emit, x: Any, *, no_nan: bool = False) -> Any:
    return t.relu6(x, no_nan=True) if no_nan else t.relu6(x)


@converter("LeakyRelu")
def leaky_relu(t: Emit, x: Any, *, alpha: float = 0.2) -> Any:
    return t.leaky_relu(x, alpha=alpha)


def channel_axis(data_format: str) -> int:
    """The channel axis: the last of NHWC and NDHWC, the second of NCHW and NCDHW."""
    return 1 if data_format.startswith("NC") else -1


@converter("BiasAdd")
def bias_add(t: Emit, x: Any, bias: Any, *, data_format: str = "NHWC") -> Any:
    return t.bias_add(x, bias, axis=1) if channel_axis(data_format) == 1 else t.add(x, bias)


@converter("BiasAddV1")
def bias_add_v1(t: Emit, x: Any, bias: Any) -> Any:
    return t.add(x, bias)


def _fused_batch_norm(t: Emit, x: Any, scale: Any, offset: Any, mean: Any, variance: Any, *, epsilon: float = 0.0001,
                      exponential_avg_factor: float = 1.0, data_format: str = "NHWC", is_training: bool = True) -> list[Any]:  # fmt: skip
    """Y, then the statistics: the given ones, or, in training mode, those of the batch (Keras writes LayerNormalization
    this way)."""
    axis = channel_axis(data_format)
    batch_mean, batch_variance = mean, variance
    if is_training:
        if exponential_avg_factor != 1.0:
            raise PortingError(
                f"{t.scope!r} updates running statistics, as in training: export the model with training=False"
            )
        mean, variance, batch_variance = t.batch_statistics(x, axis=axis)
        batch_mean = mean
    y = t.batch_norm(x, scale, offset, mean, variance, epsilon=epsilon, axis=axis)
    given = [batch_mean, batch_variance, mean, variance]
    if is_training:  # for `y` they stay at least float32, whatever the precision of the tower
        given = [t.cast(value, dtype="float32") for value in given]
    return [y, *given]


@converter("FusedBatchNorm", "FusedBatchNormV2", ignores=("U",), refuses="updates of running statistics",
           outputs=("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"))  # fmt: skip
def fused_batch_norm(t: Emit, x: Any, scale: Any, offset: Any, mean: Any, variance: Any, *, epsilon: float = 0.0001,
                     exponential_avg_factor: float = 1.0, data_format: str = "NHWC", is_training: bool = True) -> tuple[Any, ...]:  # fmt: skip
    return tuple(_fused_batch_norm(t, x, scale, offset, mean, variance, epsilon=epsilon, data_format=data_format,
                                   exponential_avg_factor=exponential_avg_factor, is_training=is_training))  # fmt: skip


@converter("FusedBatchNormV3", ignores=("U",), refuses="updates of running statistics",
           outputs=("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3"))  # fmt: skip
def fused_batch_norm_v3(t: Emit, x: Any, scale: Any, offset: Any, mean: Any, variance: Any, *, epsilon: float = 0.0001,
                        exponential_avg_factor: float = 1.0, data_format: str = "NHWC", is_training: bool = True) -> tuple[Any, ...]:  # fmt: skip
    results = _fused_batch_norm(t, x, scale, offset, mean, variance, epsilon=epsilon, data_format=data_format,
                                exponential_avg_factor=exponential_avg_factor, is_training=is_training)  # fmt: skip
    return (*results, results[-1])


@converter("BatchNormWithGlobalNormalization")
def batch_norm_with_global_normalization(t: Emit, x: Any, mean: Any, variance: Any, beta: Any, gamma: Any, *,
                                         variance_epsilon: float, scale_after_normalization: bool) -> Any:  # fmt: skip
    scale = gamma if scale_after_normalization else t.ones_like(variance)
    return t.batch_norm(x, scale, beta, mean, variance, epsilon=variance_epsilon, axis=-1)


@converter("LRN")
def local_response_norm(
    t: Emit, x: Any, *, depth_radius: int = 5, bias: float = 1.0, alpha: float = 1.0, beta: float = 0.5
) -> Any:
    return t.local_response_norm(x, radius=depth_radius, bias=bias, alpha=alpha, beta=beta)
