"""Layers: how the modules of `torch_towers.layers` are written: torch's own where it has them, a few lines in the file, else by name."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torch_towers.graph.registry import MODULES
from torch_towers.source.expression import Expression, literal


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer: what its constructor is, None where it has no weights and is only a call; how it is called; imports."""

    made: str | None
    called: str = "{self}({args})"  # `self` is the attribute
    imports: tuple[tuple[str, str], ...] = ()  # (module, name)
    helper: str | None = None  # the class of the file's own that it needs

    def call(self, attribute: str, args: list[Expression]) -> Expression:
        """The layer's call on operands."""
        named = {"self": f"self.{attribute}", "args": ", ".join(map(str, args)), "first": args[0] if args else ""}
        return Expression(self.called.format(*args, **named))


HELPERS = {
    "MultiHeadAttention": '''\
class MultiHeadAttention(nn.Module):
    """Attention between four projections; where a row of the mask lets nothing through: the average of all, or 0 (`empty`)."""

    def __init__(
        self, query_features: int, key_features: int, value_features: int, out_features: int,
        heads: int, key_dim: int, value_dim: int, scale: float, bias: bool = True, out_bias: bool = True, empty: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.scale, self.empty = heads, scale, empty
        self.query = nn.Linear(query_features, heads * key_dim, bias)
        self.key = nn.Linear(key_features, heads * key_dim, bias)
        self.value = nn.Linear(value_features, heads * value_dim, bias)
        self.attention_output = nn.Linear(heads * value_dim, out_features, out_bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(query), self.key(key), self.value(value))
        )  # [batch, heads, length, dim]
        some = None
        if mask is not None and mask.dtype == torch.bool:
            some = mask.any(-1, keepdim=True)
            query, mask = torch.where(some, query, 0.0), mask | ~some
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        if self.empty and some is not None:
            found = torch.where(some, found, 0.0)
        return self.attention_output(found.transpose(1, 2).flatten(-2))
''',
    "PositionEmbedding": '''\
class PositionEmbedding(nn.Module):
    """A vector for each place, the first ones of a table: length -> [length, dim]."""

    def __init__(self, num_embeddings: int, embedding_dim: int, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))

    def forward(self, length: int) -> Tensor:
        if self.strict and length > len(self.weight):
            raise ValueError(f"{length} places, but the table has {len(self.weight)}")
        return self.weight[:length]
''',
    "BatchNorm": '''\
class BatchNorm(nn.Module):
    """Batch normalization over the last axis by its running statistics: [..., features] -> [..., features]."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float, scale: bool = True, shift: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        factor = torch.rsqrt(self.running_var + self.eps)
        factor = factor if self.weight is None else factor * self.weight
        shift = self.running_mean * factor
        return x * factor + (-shift if self.bias is None else self.bias - shift)
''',
}
"""Classes that a file holds where it needs them: weights by the names that the layer of `torch_towers.layers` has."""

_KNOWN = frozenset(("torch", "nn", "F", "Tensor", *dir(builtins)))  # what a file has without more imports


def _arguments(text: str) -> list[str]:
    """The arguments of the constructor of a class."""
    made = next(
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    return [argument.arg for argument in made.args.args if argument.arg != "self"]


@functools.cache
def own_class(kind: str) -> str | None:
    """The text of a layer's class for the file itself, where it needs nothing but torch; else None."""
    function = MODULES[kind].function
    if kind in HELPERS:
        return HELPERS[kind] if _arguments(HELPERS[kind]) == list(inspect.signature(function).parameters) else None
    if not inspect.isclass(function) or not function.__module__.startswith("torch_towers."):
        return None
    text = inspect.getsource(function)
    text = text[text.index("class ") :]
    text = re.sub(r"  # type: ignore\[[^\]]*\]", "", text)
    tree = ast.parse(text)
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} | {function.__name__}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return text if used <= _KNOWN | stored else None


def layer_source(kind: str, args: Mapping[str, Any], dtype: str | None = None) -> LayerSource:
    """How a layer of the closed table is written. `dtype` is that of its weights, where it is not float32."""
    other = f", dtype=torch.{dtype}" if dtype not in (None, "float32") else ""
    a = _Args(kind, args)
    if kind == "Linear":
        return LayerSource(
            f"nn.Linear({a['in_features']}, {a['out_features']}{'' if a.raw('bias') else ', bias=False'}{other})"
        )
    if kind == "Embedding":
        return LayerSource(f"nn.Embedding({a['num_embeddings']}, {a['embedding_dim']}{other})")
    if kind == "LayerNorm":
        shape = tuple(map(int, a.raw("normalized_shape")))
        affine = "" if a.raw("elementwise_affine") else ", elementwise_affine=False"
        bias = "" if a.raw("bias") or affine else ", bias=False"
        size = str(shape[0]) if len(shape) == 1 else f"[{', '.join(map(str, shape))}]"
        return LayerSource(f"nn.LayerNorm({size}, eps={_short(a.raw('eps'))}{affine}{bias}{other})")
    if kind == "PReLU":
        return LayerSource(f"nn.PReLU({a['num_parameters']}{other})")
    if kind == "L2Normalize":
        return _normalized(a)
    return _by_name(kind, args)


def _normalized(a: _Args) -> LayerSource:
    """`x * min(rsqrt(max(squares, eps)), limit)` is `x / max(length, ...)`."""
    axes, eps, limit = tuple(map(int, a.raw("axes"))), float(a.raw("eps")), float(a.raw("limit"))
    floor = max(math.sqrt(eps), 0.0 if math.isinf(limit) else 1.0 / limit)
    if len(axes) != 1 or (eps and math.isfinite(limit)):
        return _by_name("L2Normalize", a.args)
    eps_text = "" if abs(floor - 1e-12) < 1e-19 else f", eps={_short(floor)}"
    return LayerSource(None, f"F.normalize({{args}}, dim={axes[0]}{eps_text})")


def _by_name(kind: str, args: Mapping[str, Any]) -> LayerSource:
    """The layer by its class, with the arguments that are not its defaults, the first ones without their names."""
    function = MODULES[kind].function
    parameters = inspect.signature(function).parameters
    said = {key: value for key, value in args.items() if parameters[key].default != value}
    first = [name for name, own in zip(parameters, said, strict=False) if name == own][:4]
    named = ", ".join(f"{'' if key in first else f'{key}='}{literal(value)}" for key, value in said.items())
    if function.__module__.startswith("torch.nn"):
        return LayerSource(f"nn.{function.__name__}({named})")
    if own_class(kind) is not None:
        return LayerSource(f"{function.__name__}({named})", helper=kind)
    return LayerSource(f"{function.__name__}({named})", imports=((function.__module__, function.__name__),))


def _short(value: float) -> str:
    """A float32 of the graph with as few digits as say the same float32."""
    short = str(np.float32(value))
    return repr(float(short)) if float(np.float32(float(short))) == value else repr(float(value))


@dataclass(frozen=True, slots=True)
class _Args:
    """Arguments of a layer, defaults among them."""

    kind: str
    args: Mapping[str, Any]
    _defaults: dict[str, Any] = field(default_factory=dict[str, Any])

    def raw(self, name: str) -> Any:
        if name in self.args:
            return self.args[name]
        return inspect.signature(MODULES[self.kind].function).parameters[name].default

    def __getitem__(self, name: str) -> str:
        return str(literal(self.raw(name)))
