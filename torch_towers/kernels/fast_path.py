"""Fast path: when values may be read, and when they may be computed another way than by calling torch, since nobody would see it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import has_torch_function

_jit: Any = torch.jit
_forward_ad: Any = forward_ad

# What torch tells only under names of its own. A torch without them computes everything by its own calls.
_modes: Any = getattr(torch._C, "_len_torch_dispatch_stack", None)
_KINDS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
_hooks: Any = [getattr(nn.modules.module, f"_global_{kind}", None) for kind in _KINDS]


def plain(*tensors: Tensor) -> bool:
    """Whether these are numbers and nobody follows what becomes of them, so that it may be computed in any way.

    None of them has a gradient, a tangent or a batch of `vmap`, or is of a class of its own; no compiler, export, trace or mode
    is at work, and autocast does not change a dtype.
    """
    if not readable(*tensors) or _modes is None or has_torch_function(tensors):
        return False
    if torch.is_autocast_enabled(tensors[0].device.type):
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return False
    return not forward_ad_is_on() or all(_forward_ad.unpack_dual(x).tangent is None for x in tensors)


def forward_ad_is_on() -> bool:
    """Whether forward mode is at work: `unpack_dual` takes a microsecond, and is asked only then."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def readable(*tensors: Tensor) -> bool:
    """Whether values may be looked at: they are in memory, and there is no compiler, export, trace or mode that would miss it.

    Without tensors, whether sizes may be.
    """
    if torch.compiler.is_compiling() or _jit.is_tracing() or (_modes is not None and _modes()):
        return False
    return all(map(_in_memory, tensors))


def _in_memory(x: Tensor) -> bool:
    """Whether it is torch's own tensor with numbers: not a subclass, not meta, nothing that `torch.func` wraps."""
    if (type(x) is not Tensor and type(x) is not nn.Parameter) or x.is_meta:
        return False
    try:
        return x.data_ptr() != 0 or not x.numel()
    except RuntimeError:  # what vmap, grad and jvp hand on has no memory
        return False


def untouched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of the layer does what its class says and nothing else: not swapped, not patched, without hooks."""
    at: dict[str, Any] = layer.__dict__
    hooks = at["_forward_hooks"] or at["_forward_pre_hooks"] or at["_backward_hooks"] or at["_backward_pre_hooks"]
    return (
        type(layer) is kind
        and not hooks
        and "forward" not in at
        and all(each is not None and not each for each in _hooks)
    )
