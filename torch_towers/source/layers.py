"""How the modules of `torch_towers.layers` appear in source: as torch's own, as a small class in the file, or
imported."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_towers.graph.registry import MODULES
from torch_towers.source.expression import ATOM, Expression, literal
from torch_towers.source.self_attention import is_self_attention, kind_of_mask, self_attention


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer: its constructor (None if it has no weights and is only a call), its call, and its imports."""

    made: str | None
    called: str = "{self}({args})"  # `self` is the attribute
    imports: tuple[tuple[str, str], ...] = ()  # (module, name)
    helper: tuple[str, str] | None = None  # the class that it needs in the file: its name and its source
    level: int = ATOM  # the precedence of the call

    def call(self, attribute: str, args: list[Expression]) -> Expression:
        """The layer's call on operands."""
        named = {"self": f"self.{attribute}", "args": ", ".join(map(str, args)), "first": args[0] if args else ""}
        return Expression(self.called.format(*args, **named), self.level)


HELPERS = {
    "MultiHeadAttention": '''\
class MultiHeadAttention(nn.Module):
    """Attention between four projections. A row whose mask allows nothing gets the average of all, or 0 (`empty`)."""

    def __init__(
        self, query_features: int, key_features: int, value_features: int, out_features: int, heads: int, key_dim: int,
        value_dim: int, scale: float, bias: bool = True, out_bias: bool = True, empty: bool = False,
    ) -> None:  # fmt: skip
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
    """The first vectors of a table, one per position: length -> [length, dim]."""

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
    """Batch normalization over the last axis with running statistics: [..., features] -> [..., features]."""

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
"""Classes that a file defines if needed; weights have the names of the layer in `torch_towers.layers`."""

_KNOWN = frozenset(("torch", "nn", "F", "Tensor", *dir(builtins)))  # names available without further imports


_REDUCTIONS = {"GlobalAveragePooling": "mean", "GlobalMaxPooling": "amax"}


def _arguments(text: str) -> list[str]:
    """The constructor's arguments of a class."""
    made = next(
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    return [argument.arg for argument in made.args.args if argument.arg != "self"]


@functools.cache
def own_class(kind: str) -> str | None:
    """The source of a layer's class for the file itself, if it needs only torch; else None."""
    function = MODULES[kind].function
    if kind in HELPERS:
        return HELPERS[kind] if _arguments(HELPERS[kind]) == list(inspect.signature(function).parameters) else None
    if not inspect.isclass(function) or not function.__module__.startswith("torch_towers."):
        return None
    text = inspect.getsource(function)
    text = text[text.index("class ") :]
    text = _for_a_file(re.sub(r"  # type: ignore\[[^\]]*\]", "", text))
    tree = ast.parse(text)
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} | {function.__name__}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return text if used <= _KNOWN | stored else None


def _for_a_file(text: str) -> str:
    """A class without what only the library has: where its law comes from, and how it is printed."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "extra_repr":
            lines[node.lineno - 2 : node.end_lineno] = [""] * ((node.end_lineno or 0) - node.lineno + 2)
    text = re.sub(r"(\n *|(?<=\.) +)Source: [^\"]*?(?=\n *\"\"\"|\"\"\")", "", "".join(lines))
    return text.rstrip() + "\n"


def layer_source(
    kind: str,
    args: Mapping[str, Any],
    dtype: str | None = None,
    operands: Sequence[Expression] = (),
    known: Sequence[str | None] = (),
) -> LayerSource:
    """The source of a layer of the closed table. `dtype` is that of its floats, if not float32; `known` has the dtypes
    of its operands."""
    other = f", dtype=torch.{dtype}" if dtype not in (None, "float32") else ""
    a = _Args(kind, args, dtype or "")
    if kind == "Linear":
        return LayerSource(
            f"nn.Linear({a['in_features']}, {a['out_features']}{'' if a.raw('bias') else ', bias=False'}{other})"
        )
    if kind == "Embedding":
        return LayerSource(f"nn.Embedding({a['num_embeddings']}, {a['embedding_dim']}{other})")
    if kind == "PositionEmbedding" and not a.raw("strict"):
        whole = [a["num_embeddings"]] == [str(operand) for operand in operands]
        rows = "{self}.weight" if whole else "{self}.weight[:{args}]"
        return LayerSource(f"nn.Embedding({a['num_embeddings']}, {a['embedding_dim']}{other})", rows)
    if kind == "LayerNorm":
        shape = tuple(map(int, a.raw("normalized_shape")))
        affine = "" if a.raw("elementwise_affine") else ", elementwise_affine=False"
        bias = "" if a.raw("bias") or affine else ", bias=False"
        size = str(shape[0]) if len(shape) == 1 else f"[{', '.join(map(str, shape))}]"
        return LayerSource(f"nn.LayerNorm({size}, eps={a.number('eps')}{affine}{bias}{other})")
    if kind == "GroupNorm" and not a.raw("channels_last") and a.raw("scale") == a.raw("shift"):
        groups, channels, affine = a["num_groups"], a["num_channels"], "" if a.raw("scale") else ", affine=False"
        if groups != channels:  # torch refuses groups of one number
            return LayerSource(f"nn.GroupNorm({groups}, {channels}, eps={a.number('eps')}{affine}{other})")
    if kind == "PReLU":
        return LayerSource(f"nn.PReLU({a['num_parameters']}{other})")
    if kind == "L2Normalize":
        return _normalized(a)
    if kind in _REDUCTIONS:
        keepdim = ", keepdim=True" if a.raw("keepdim") else ""
        return LayerSource(None, f"{{0:.}}.{_REDUCTIONS[kind]}({literal(tuple(map(int, a.raw('axes'))))}{keepdim})")
    if kind == "MaskedAverage" and a.raw("finite") and not a.raw("floor") and not a.raw("zero_if_empty"):
        return LayerSource(None, "masked_mean({0}, {1})")
    if kind == "ZeroPadding":
        sizes = [int(size) for margin in reversed(a.raw("margins")) for size in margin]
        return LayerSource(None, f"F.pad({{args}}, {literal(tuple([0, 0] * bool(a.raw('channels_last')) + sizes))})")
    if kind == "MultiHeadAttention" and (found := _self_attention(a, operands, known)):
        return found
    return _by_name(a)


def _self_attention(a: _Args, operands: Sequence[Expression], known: Sequence[str | None]) -> LayerSource | None:
    """Attention of one value to itself, if all its sizes are the model's."""
    if len({str(operand) for operand in operands[:3]}) != 1 or a.dtype != "float32" or not is_self_attention(a.args):
        return None
    masked = len(operands) > 3 and str(operands[3]) != "None"
    mask = kind_of_mask(known[3], empty=bool(a.raw("empty"))) if masked else ""
    if mask is None:
        return None
    made = f"SelfAttention({a['query_features']}, {a['heads']})"
    return LayerSource(
        made, "{self}({0}, {3})" if masked else "{self}({0})", helper=("SelfAttention", self_attention(mask))
    )


def _normalized(a: _Args) -> LayerSource:
    """`x * min(rsqrt(max(squares, eps)), limit)` is `x / max(length, ...)`."""
    axes, eps, limit = tuple(map(int, a.raw("axes"))), float(a.raw("eps")), float(a.raw("limit"))
    floor = max(math.sqrt(eps), 0.0 if math.isinf(limit) else 1.0 / limit)
    if len(axes) != 1 or (eps and math.isfinite(limit)):
        return _by_name(a)
    eps_text = "" if abs(floor - 1e-12) < 1e-19 else f", eps={shortest(floor, a.dtype)}"
    return LayerSource(None, f"F.normalize({{args}}, dim={axes[0]}{eps_text})")


def _by_name(a: _Args) -> LayerSource:
    """The layer's class with its non-default arguments, the first ones positional."""
    kind, function = a.kind, MODULES[a.kind].function
    parameters = inspect.signature(function).parameters
    said = {key: value for key, value in a.args.items() if parameters[key].default != value}
    first = [name for name, own in zip(parameters, said, strict=False) if name == own][:4]
    named = ", ".join(f"{'' if key in first else f'{key}='}{a.number(key)}" for key in said)
    if function.__module__.startswith("torch.nn"):
        return LayerSource(f"nn.{function.__name__}({named})")
    if (own := own_class(kind)) is not None:
        return LayerSource(f"{function.__name__}({named})", helper=(kind, own))
    return LayerSource(f"{function.__name__}({named})", imports=((function.__module__, function.__name__),))


def shortest(value: float, dtype: str | None) -> Expression:
    """The shortest decimal that is the same number at this precision: `1e-06` of 9.999999974752427e-07."""
    single = np.float32(value)
    short = float(str(single)) if dtype in ("float32", "float16", "bfloat16") and np.isfinite(single) else value
    found = literal(short if np.float32(short) == single else value)
    if math.isfinite(short) and abs(short) >= 1e6 and float(f"{short:g}") == short:
        return Expression(re.sub(r"e\+0*", "e", f"{short:g}"), found.level)
    return found


@dataclass(frozen=True, slots=True)
class _Args:
    """Arguments of a layer, including defaults. `dtype` is that of its floats."""

    kind: str
    args: Mapping[str, Any]
    dtype: str

    def raw(self, name: str) -> Any:
        if name in self.args:
            return self.args[name]
        return inspect.signature(MODULES[self.kind].function).parameters[name].default

    def number(self, name: str) -> str:
        """An argument as source, a float as the shortest one."""
        value = self.raw(name)
        return str(shortest(value, self.dtype)) if isinstance(value, float) else self[name]

    def __getitem__(self, name: str) -> str:
        return str(literal(self.raw(name)))
