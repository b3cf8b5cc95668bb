"""How each op of `torch_towers.ops` is written in torch, if it is a plain call; other ops are called by name.

A spelling computes the op for every operand that an encoder can pass. Ops whose semantics differ from torch's (a sign
that keeps NaN, the first of equal maxima, TensorFlow's softplus) have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.source.expression import COMPARED, OR, POWER, PRODUCT, SIGN, SUM, Expression, literal
from torch_towers.source.layout import UNKNOWN, Known

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an op: operands as source, what is known of them, attributes and result."""

    args: tuple[Expression, ...]
    known: tuple[Known, ...]
    attrs: Mapping[str, Any]
    result: Known = UNKNOWN

    def floats(self, index: int = 0) -> bool:
        """Whether an operand is known to be float."""
        return self.known[index].dtype in _FLOATS

    def tensors(self) -> bool:
        """Whether no operand is a number."""
        return all(known.dtype not in (None, "size", "number") for known in self.known)


Spelling = Callable[[Call], "Expression | None"]
"""Returns the op as a torch expression, or None if it has none for these operands or attributes."""

SPELLINGS: dict[str, Spelling] = {}


def spelled(*names: str) -> Callable[[Spelling], Spelling]:
    """Registers the spelling of ops."""

    def add(spelling: Spelling) -> Spelling:
        SPELLINGS.update(dict.fromkeys(names, spelling))
        return spelling

    return add


def _template(text: str, level: int) -> Spelling:
    def spell(call: Call) -> Expression | None:
        values = {key: str(literal(value)) for key, value in call.attrs.items() if not isinstance(value, Mapping)}
        return Expression(text.format(*call.args, **values), level)

    return spell


def _templates(level: int, **texts: str) -> None:
    SPELLINGS.update({name: _template(text, level) for name, text in texts.items()})


# -- elementwise --------------------------------------------------------------------------------------------------------

_templates(
    8,
    **{name: f"torch.{name}({{0}})" for name in (
        "abs", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "log", "log1p", "erf", "erfc", "erfinv", "lgamma", "digamma", "sin",
        "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "floor", "ceil", "round",
        "isnan", "isinf", "isfinite", "ones_like", "zeros_like",
    )},
    softmax="torch.softmax({0}, dim=-1)",
    log_softmax="torch.log_softmax({0}, dim=-1)",
    elu="F.elu({0})", selu="F.selu({0})", softsign="F.softsign({0})", silu="F.silu({0})", mish="F.mish({0})",
    hard_sigmoid="F.hardsigmoid({0})", hard_silu="F.hardswish({0})", log_sigmoid="F.logsigmoid({0})",
    scaled_elu="F.elu({0}, {alpha})", leaky_relu="F.leaky_relu({0}, {alpha})",
    clipped_line="torch.clamp({0:*} * {slope} + {offset}, 0.0, 1.0)",
    unsqueeze="{0:.}.unsqueeze({axis})",
    matrix_transpose="{0:.}.mT",
    weighted_sum="({0:*} * {1:.}.unsqueeze(-1)).sum(1)",
)  # fmt: skip
_templates(SIGN, neg="-{0:~}", logical_not="~{0:~}", bitwise_not="~{0:~}")
_templates(SUM, sub="{0:+} - {1:+r}", add="{0:+} + {1:+r}")
_templates(PRODUCT, mul="{0:*} * {1:*r}", matmul="{0:*} @ {1:*r}")
_templates(
    COMPARED,
    less="{0:|} < {1:|}", less_equal="{0:|} <= {1:|}", greater="{0:|} > {1:|}", greater_equal="{0:|} >= {1:|}",
)  # fmt: skip
_templates(SUM, size_add="{0:+} + {1:+r}", size_sub="{0:+} - {1:+r}")
_templates(PRODUCT, size_mul="{0:*} * {1:*r}", size_floordiv="{0:*} // {1:*r}", size_mod="{0:*} % {1:*r}")
_templates(8, size_max="max({0}, {1})", size_min="min({0}, {1})", size="{0:.}.shape[{axis}]")


@spelled("square")
def _square(call: Call) -> Expression | None:
    return Expression(f"torch.square({call.args[0]})") if call.floats() else None


def _compared(operator: str) -> Spelling:
    def spell(call: Call) -> Expression | None:
        first = call.known[0].dtype
        if first in (None, "size", "number", "string"):
            return None
        return Expression(f"{call.args[0]:|} {operator} {call.args[1]:|}", COMPARED)

    return spell


SPELLINGS["equal"], SPELLINGS["not_equal"] = _compared("=="), _compared("!=")


@spelled("div")
def _div(call: Call) -> Expression | None:
    if call.known[0].dtype == "number":
        return None  # rounds once: torch computes `number / tensor` as `number * (1 / tensor)`
    return Expression(f"{call.args[0]:*} / {call.args[1]:*r}", PRODUCT)


def _of_tensors(text: str, level: int = 8) -> Spelling:
    def spell(call: Call) -> Expression | None:
        return Expression(text.format(*call.args), level) if call.tensors() else None

    return spell


SPELLINGS["logical_and"] = _of_tensors("{0:&} & {1:&r}", 3)
SPELLINGS["logical_or"] = _of_tensors("{0:|} | {1:|r}", OR)
SPELLINGS["pow"] = _of_tensors("{0:**r} ** {1:**}", POWER)
SPELLINGS["atan2"] = _of_tensors("torch.atan2({0}, {1})")


def _bounded(function: str, bound: str) -> Spelling:
    def spell(call: Call) -> Expression | None:
        numbers = [known.dtype == "number" for known in call.known]
        if any(numbers):
            value, limit = (call.args[1], call.args[0]) if numbers[0] else call.args
            return None if all(numbers) else Expression(f"torch.clamp({value}, {bound}={limit})")
        return Expression(f"torch.{function}({call.args[0]}, {call.args[1]})") if call.tensors() else None

    return spell


SPELLINGS["maximum"], SPELLINGS["minimum"] = _bounded("maximum", "min"), _bounded("minimum", "max")


@spelled("squared_difference")
def _squared_difference(call: Call) -> Expression | None:
    return (
        Expression(f"torch.square({call.args[0]:+} - {call.args[1]:+r})") if call.tensors() and call.floats() else None
    )


@spelled("where")
def _where(call: Call) -> Expression | None:
    if call.result.dtype in (None, "string"):
        return None
    return Expression(f"torch.where({call.args[0]}, {call.args[1]}, {call.args[2]})")


FUNCTIONS = {
    "relu": '''\
def relu(x: Tensor) -> Tensor:
    """ReLU, but NaN (the average of nothing) becomes 0, as in TensorFlow with oneDNN."""
    return torch.where(x > 0, x, 0.0)
''',
    "relu6": '''\
def relu6(x: Tensor) -> Tensor:
    """ReLU6, but NaN (the average of nothing) becomes 0, as in TensorFlow with oneDNN."""
    return torch.where(x > 0, x, 0.0).clamp(max=6.0)
''',
    "masked_mean": '''\
def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over a mask's positions, NaN if it has none: [batch, length, dim], [batch, length] -> [batch, dim]."""
    return (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
''',
}
"""Functions that a file defines where it calls them."""


def _relu_of(function: str) -> Spelling:
    def spell(call: Call) -> Expression | None:
        return Expression(f"{'' if call.attrs.get('no_nan') else 'F.'}{function}({call.args[0]})")

    return spell


SPELLINGS["relu"], SPELLINGS["relu6"] = _relu_of("relu"), _relu_of("relu6")


@spelled("gelu")
def _gelu(call: Call) -> Expression | None:
    approximate = ', approximate="tanh"' if call.attrs["form"] == "tanh" else ""
    return Expression(f"F.gelu({call.args[0]}{approximate})")


@spelled("cast")
def _cast(call: Call) -> Expression | None:
    name = {"float32": ".float()", "float64": ".double()", "int64": ".long()", "int32": ".int()", "bool": ".bool()"}
    dtype = str(call.attrs["dtype"])
    return Expression(f"{call.args[0]:.}{name.get(dtype, f'.to({torch_name(dtype)})')}")


def torch_name(dtype: str) -> str:
    """`torch.float32` for "float32"."""
    return str(TORCH_DTYPES[dtype])


# -- shapes and joins ---------------------------------------------------------------------------------------------------


def _is_size(known: Known) -> bool:
    return known.dtype in ("size", "number")


def _sizes(call: Call, first: int = 1) -> str | None:
    """The operands from `first` on, if all of them are integers."""
    if not all(map(_is_size, call.known[first:])):
        return None
    return ", ".join(map(str, call.args[first:]))


def _with_sizes(method: str, empty: str = "") -> Spelling:
    def spell(call: Call) -> Expression | None:
        sizes = _sizes(call)
        if sizes is None or call.known[0].dtype in (None, "string"):
            return None
        return Expression(f"{call.args[0]:.}.{method}({sizes or empty})")

    return spell


SPELLINGS["reshape"] = _with_sizes("reshape", "()")
SPELLINGS["broadcast_to"] = _with_sizes("expand", "()")
SPELLINGS["tile"] = _with_sizes("repeat", "()")
SPELLINGS["expand"] = _with_sizes("expand")


@spelled("transpose")
def _transpose(call: Call) -> Expression | None:
    perm = tuple(map(int, call.attrs["perm"]))
    moved = [i for i, axis in enumerate(perm) if i != axis]
    if len(moved) == 2:
        return Expression(f"{call.args[0]:.}.transpose({moved[0]}, {moved[1]})")
    return Expression(f"{call.args[0]:.}.permute({', '.join(map(str, perm))})")


@spelled("split_last")
def _split_last(call: Call) -> Expression | None:
    return Expression(f"{call.args[0]:.}.unflatten(-1, {literal(tuple(call.attrs['sizes']))})")


@spelled("flatten")
def _flatten(call: Call) -> Expression | None:
    start, stop = int(call.attrs["start"]), int(call.attrs["stop"])
    return Expression(f"{call.args[0]:.}.flatten({start if stop == -1 else f'{start}, {stop}'})")


@spelled("join_last")
def _join_last(call: Call) -> Expression | None:
    first, dims = -int(call.attrs["count"]), call.known[0].dims
    return Expression(f"{call.args[0]:.}.flatten({first if dims is None else len(dims) + first})")


@spelled("squeeze")
def _squeeze(call: Call) -> Expression | None:
    axes = tuple(map(int, call.attrs["axes"]))
    return Expression(f"{call.args[0]:.}.squeeze({axes[0] if len(axes) == 1 else literal(axes)})")


def _joined(function: str) -> Spelling:
    def spell(call: Call) -> Expression | None:
        if not call.tensors():
            return None
        return Expression(f"torch.{function}([{', '.join(map(str, call.args))}], dim={int(call.attrs['axis'])})")

    return spell


SPELLINGS["concat"], SPELLINGS["stack"] = _joined("cat"), _joined("stack")


@spelled("slice")
def _slice(call: Call) -> Expression | None:
    axis, step = int(call.attrs["axis"]), int(call.attrs.get("step", 1))
    if step < 1 or axis < 0 or call.known[0].dtype in (None, "string"):
        return None
    start, stop = ("" if str(bound) == "None" else str(bound) for bound in call.args[1:3])
    start = "" if start == "0" else start
    text = f"{start}:{stop}" + (f":{step}" if step != 1 else "")
    return Expression(f"{call.args[0]:.}[{':, ' * axis}{text}]")


@spelled("select")
def _select(call: Call) -> Expression | None:
    axis = int(call.attrs["axis"])
    if axis < 0 or call.known[0].dtype in (None, "string") or not _is_size(call.known[1]):
        return None
    return Expression(f"{call.args[0]:.}[{':, ' * axis}{call.args[1]}]")


@spelled("narrow")
def _narrow(call: Call) -> Expression | None:
    axis = int(call.attrs["axis"])
    if axis < 0 or not all(known.dtype == "number" for known in call.known[1:]) or str(call.args[2]).startswith("-"):
        return None
    start, length = int(str(call.args[1])), int(str(call.args[2]))
    return Expression(f"{call.args[0]:.}.narrow({axis}, {start}, {length})")


@spelled("einsum")
def _einsum(call: Call) -> Expression | None:
    return Expression(f"torch.einsum({literal(str(call.attrs['equation']))}, {', '.join(map(str, call.args))})")


@spelled("flip")
def _flip(call: Call) -> Expression | None:
    return Expression(f"{call.args[0]:.}.flip({', '.join(str(int(axis)) for axis in call.attrs['axes'])})")


# -- reductions ---------------------------------------------------------------------------------------------------------


def _over(call: Call) -> str:
    axes = tuple(map(int, call.attrs["axes"]))
    dims = str(axes[0]) if len(axes) == 1 else str(literal(axes))
    return dims + (", keepdim=True" if call.attrs.get("keepdim") else "")


def _reduced(method: str, *, floats: bool) -> Spelling:
    def spell(call: Call) -> Expression | None:
        if (floats and not call.floats()) or not call.attrs["axes"]:
            return None
        return Expression(f"{call.args[0]:.}.{method}({_over(call)})")

    return spell


SPELLINGS["reduce_sum"] = _reduced("sum", floats=True)
SPELLINGS["reduce_mean"] = _reduced("mean", floats=True)


def _extreme(method: str) -> Spelling:
    def spell(call: Call) -> Expression | None:
        dims = call.known[0].dims
        axes: tuple[int, ...] = tuple(map(int, call.attrs["axes"]))
        if dims is None or not axes or not all(isinstance(dims[axis], int) and dims[axis] for axis in axes):
            return None  # of an empty axis, the op returns the lowest value, and torch raises
        return Expression(f"{call.args[0]:.}.{method}({_over(call)})")

    return spell


SPELLINGS["reduce_max"], SPELLINGS["reduce_min"] = _extreme("amax"), _extreme("amin")


SPELLINGS["reduce_any"], SPELLINGS["reduce_all"] = _reduced("any", floats=False), _reduced("all", floats=False)


# -- lookups and attention ----------------------------------------------------------------------------------------------


@spelled("gather")
def _gather(call: Call) -> Expression | None:
    if call.attrs.get("batch_dims") or call.attrs.get("axis", 0) != 0 or call.known[0].dtype in (None, "string"):
        return None
    if call.known[1].dtype not in ("int32", "int64"):
        return None
    return Expression(f"{call.args[0]:.}[{call.args[1]}]")


@spelled("attention")
def _attention(call: Call) -> Expression | None:
    mask_text = "".join(map(str, call.args[3:]))
    masked = mask_text not in ("", "None")
    if masked and call.known[3].dtype == "bool":
        return None  # a fully masked position takes the average of all
    query, key, value = (f"{x:.}.transpose(1, 2)" if call.attrs.get("heads_last") else str(x) for x in call.args[:3])
    mask = f"attn_mask={mask_text}, " if masked else ""
    text = f"F.scaled_dot_product_attention({query}, {key}, {value}, {mask}scale={literal(call.attrs['scale'])})"
    return Expression(text + (".transpose(1, 2)" if call.attrs.get("heads_last") else ""))
