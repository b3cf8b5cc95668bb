"""Calls: when a layer may be computed another way than by calling it, since nobody would see a difference."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook  # type: ignore[reportUnknownVariableType]

_C: Any = torch._C
_forward_ad: Any = forward_ad


def untouched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of the layer does what its class says and nothing else: not swapped, not patched, without hooks."""
    at: dict[str, Any] = layer.__dict__
    hooks = at["_forward_hooks"] or at["_forward_pre_hooks"] or at["_backward_hooks"] or at["_backward_pre_hooks"]
    return type(layer) is kind and not hooks and "forward" not in at and not _has_any_global_hook()


def only_numbers() -> bool:
    """Whether nothing follows torch's calls (gradients, compilers, tracing, vmap, modes): it would miss what faster code does."""
    return not (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or _C._get_tracing_state()
        or _C._len_torch_dispatch_stack()
        or _C._functorch.peek_interpreter_stack()
        or _forward_ad._current_level >= 0
    )
