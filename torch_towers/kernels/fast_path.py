"""When a fast path is allowed: when values may be read, and when nothing observes that torch's own calls are
bypassed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import has_torch_function

_jit: Any = torch.jit
_forward_ad: Any = forward_ad

# Private names of torch. In a torch without them, everything takes the slow path.
_modes: Any = getattr(torch._C, "_len_torch_dispatch_stack", None)
_KINDS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
_hooks: Any = [getattr(nn.modules.module, f"_global_{kind}", None) for kind in _KINDS]


def plain(*tensors: Tensor) -> bool:
    """Whether these are plain tensors that nothing tracks, so that a fast path may compute the result.

    True without gradients, tangents, `vmap` and tensor subclasses, and without a compiler, export, trace, torch mode or
    dtype-changing autocast.
    """
    if not readable(*tensors) or _modes is None or has_torch_function(tensors):
        return False
    if torch.is_autocast_enabled("cpu" if tensors[0].is_cpu else tensors[0].device.type):
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return False
    return not forward_ad_is_on() or all(_forward_ad.unpack_dual(x).tangent is None for x in tensors)


def forward_ad_is_on() -> bool:
    """Whether forward-mode AD is active. Guards `unpack_dual`, which takes a microsecond."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def readable(*tensors: Tensor) -> bool:
    """Whether values may be read: they are in memory, and no compiler, export, trace or mode would miss the read.

    Without arguments: whether sizes may be read.
    """
    if torch.compiler.is_compiling() or _jit.is_tracing() or (_modes is not None and _modes()):
        return False
    return all(map(_in_memory, tensors))


def _in_memory(x: Tensor) -> bool:
    """Whether it is a plain torch tensor with data: not a subclass, not meta, not wrapped by `torch.func`."""
    if (type(x) is not Tensor and type(x) is not nn.Parameter) or x.is_meta:
        return False
    try:
        return x.data_ptr() != 0 or not x.numel()
    except RuntimeError:  # tensors inside vmap, grad and jvp have no storage
        return False


def untouched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling the layer just runs its class's forward: not swapped, not patched, without hooks."""
    at: dict[str, Any] = layer.__dict__
    hooks = at["_forward_hooks"] or at["_forward_pre_hooks"] or at["_backward_hooks"] or at["_backward_pre_hooks"]
    return (
        type(layer) is kind
        and not hooks
        and "forward" not in at
        and all(each is not None and not each for each in _hooks)
    )
