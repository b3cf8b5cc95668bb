"""Anything that observes torch's calls sees the same through a fast path as through torch's own calls.

Numbers are small integers, whose sums are exact in every order: results, gradients and tangents are bit-exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.kernels import fast_path, native
from torch_towers.kernels import matmul as products_module
from torch_towers.kernels import top_k as top_k_module
from torch_towers.kernels.fast_path import plain, readable, untouched
from torch_towers.kernels.top_k import top_k_of_products
from torch_towers.layers import conv
from torch_towers.layers.linear import linear, linear_relu
from torch_towers.ops.linalg import matmul
from torch_towers.ops.reductions import top_k
from torch_towers.program.program import Program
from torch_towers.search.similarity import similarity

ROWS, DIM, OUT, LENGTH, WORDS = 64, 128, 320, 12, 50  # 2^21 products and more


def whole(*shape: int, seed: int = 0, device: str = "cpu") -> Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float().to(device)


Call = Callable[[Tensor], Tensor]


def _matmul(device: str) -> tuple[Call, Call, Tensor]:
    w = whole(OUT, DIM, seed=1, device=device)
    return lambda x: matmul(x, w.mT), lambda x: torch.matmul(x, w.mT), whole(ROWS, DIM, device=device)


def _similarity(device: str) -> tuple[Call, Call, Tensor]:
    w = whole(OUT, DIM, seed=1, device=device)
    return lambda x: similarity(x, w), lambda x: torch.matmul(x, w.mT), whole(ROWS, DIM, device=device)


def _layer(device: str) -> nn.Linear:
    made = nn.Linear(DIM, OUT, device=device).requires_grad_(False)
    made.weight.copy_(whole(OUT, DIM, seed=1))
    made.bias.copy_(whole(OUT, seed=2))
    return made


def _linear(device: str) -> tuple[Call, Call, Tensor]:
    layer = _layer(device)
    return lambda x: linear(layer, x), layer, whole(ROWS, DIM, device=device)


def _linear_relu(device: str) -> tuple[Call, Call, Tensor]:
    layer = _layer(device)
    return lambda x: linear_relu(layer, x), lambda x: F.relu(layer(x)), whole(ROWS, DIM, device=device)


def _dense(device: str) -> tuple[Call, Call, Tensor]:
    layer = _layer(device)
    graph = Graph(
        (TensorSpec("x", "float32", ("batch", DIM)),),
        (Node("y", "module", ("x",), {"module": "dense"}), Node("z", "relu", ("y",))),
        {"z": "z"},
        {"dense": ModuleSpec("Linear", {"in_features": DIM, "out_features": OUT})},
    )
    program = Program(graph, {f"dense.{key}": value for key, value in layer.state_dict().items()})
    program.requires_grad_(False)
    return lambda x: program(x=x)["z"], lambda x: F.relu(layer(x)), whole(ROWS, DIM, device=device)


def _weighted(device: str) -> tuple[Call, Call, Tensor]:
    table = whole(WORDS, 16, seed=1, device=device)
    ids = (whole(ROWS, LENGTH, seed=2).abs() * 7).long().to(device)
    graph = Graph(
        (TensorSpec("ids", "int64", ("batch", LENGTH)), TensorSpec("weights", "float32", ("batch", LENGTH))),
        (Node("rows", "module", ("ids",), {"module": "table"}), Node("sum", "weighted_sum", ("rows", "weights"))),
        {"sum": "sum"},
        {"table": ModuleSpec("Embedding", {"num_embeddings": WORDS, "embedding_dim": 16})},
    )
    program = Program(graph, {"table.weight": table}).requires_grad_(False)
    slow: Call = lambda x: torch.bmm(x.unsqueeze(1), F.embedding(ids, table)).squeeze(1)  # noqa: E731
    return lambda x: program(ids=ids, weights=x)["sum"], slow, whole(ROWS, LENGTH, device=device)


def _sorted(x: Tensor, k: int) -> Tensor:
    return torch.sort(x, dim=-1, descending=True, stable=True).values[..., :k]


def _best(device: str) -> tuple[Call, Call, Tensor]:
    c = whole(4 * OUT, DIM, seed=1, device=device)
    return (
        lambda x: top_k_of_products(x, c, 5)[0],
        lambda x: _sorted(torch.matmul(x, c.mT), 5),
        whole(ROWS, DIM, device=device),
    )


def _top_k(device: str) -> tuple[Call, Call, Tensor]:
    x = torch.stack([torch.randperm(900, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    return lambda x: top_k(x, 5)[0], lambda x: _sorted(x, 5), x.float().to(device)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images in one step too."""
    monkeypatch.setattr(conv, "MANY", 0)


def _image(device: str) -> tuple[Call, Call, Tensor]:
    w, b = whole(8, 4, 3, 3, seed=1, device=device), whole(8, seed=2, device=device)
    args = {"in_channels": 4, "out_channels": 8, "kernel_size": (3, 3), "padding": "SAME"}
    nodes = (
        Node("conv", "module", ("x",), {"module": "conv"}),
        Node("norm", "module", ("conv",), {"module": "norm"}),
        Node("y", "relu", ("norm",), {"no_nan": True}),
    )
    modules = {"conv": ModuleSpec("Conv2d", args), "norm": ModuleSpec("BatchNorm", {"num_features": 8, "eps": 0.25})}
    inputs = (TensorSpec("x", "float32", ("batch", 6, 6, 4)),)
    norm = {"weight": w[:, 0, 0, 0], "bias": b, "running_mean": b + 1, "running_var": torch.full_like(b, 0.75)}
    weights = {"conv.weight": w, "conv.bias": b, **{f"norm.{key}": value for key, value in norm.items()}}
    program = Program(Graph(inputs, nodes, {"y": "y"}, modules), weights).requires_grad_(False)

    def slow(x: Tensor) -> Tensor:
        y = F.conv2d(x.movedim(-1, 1), w, b, padding=1).movedim(1, -1)
        return F.relu(y * norm["weight"] + (b - norm["running_mean"] * norm["weight"]))

    return lambda x: program(x=x)["y"], slow, whole(8, 6, 6, 4, device=device)


PATHS = {
    "convolution, fused": _image,
    "matmul": _matmul, "similarity": _similarity, "linear": _linear, "linear with relu": _linear_relu, "dense, fused": _dense,
    "weighted embeddings": _weighted, "best of products": _best, "top_k": _top_k,
}  # fmt: skip


# -- what follows -------------------------------------------------------------------------------------------------------


def _other(x: Tensor) -> Tensor:
    """Other values than those that a graph was captured with."""
    return x.flip(0).roll(1, -1)


def _called(f: Call, x: Tensor) -> Any:
    return f(x)


def _without_gradients(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        y = f(x.clone().requires_grad_())
    return y, y.requires_grad, y.is_inference()


def _in_inference_mode(f: Call, x: Tensor) -> Any:
    with torch.inference_mode():
        y = f(x)
    return y.clone(), y.is_inference()


def _backward(f: Call, x: Tensor) -> Any:
    x = x.clone().requires_grad_()
    y = f(x)
    y.backward(torch.ones_like(y))
    return y, x.grad


def _vjp(f: Call, x: Tensor) -> Any:
    y, back = torch.func.vjp(f, x)
    return y, back(torch.ones_like(y))


def _jvp(f: Call, x: Tensor) -> Any:
    return torch.func.jvp(f, (x,), (_other(x),))


def _jvp_without_gradients(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        return _jvp(f, x)


def _dual(f: Call, x: Tensor) -> Any:
    with torch.no_grad(), forward_ad.dual_level():
        y = forward_ad.unpack_dual(f(forward_ad.make_dual(x, _other(x))))
        return y.primal.clone(), y.tangent


def _beside_a_dual(f: Call, x: Tensor) -> Any:
    """Forward mode for something else."""
    with torch.no_grad(), forward_ad.dual_level():
        return forward_ad.unpack_dual(f(x)).primal.clone()


def _vmap(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        return torch.func.vmap(f)(torch.stack([x, _other(x)]))


def _jacobian(f: Call, x: Tensor) -> Any:
    return torch.func.vmap(torch.func.grad(lambda x: f(x).sum()))(torch.stack([x, _other(x)]))


def _functionalized(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        return torch.func.functionalize(f)(x)


def _autocast(f: Call, x: Tensor) -> Any:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return f(x)


def _traced(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        return torch.jit.trace(f, x, check_trace=False)(_other(x))


def _compiled(f: Call, x: Tensor) -> Any:
    torch.compiler.reset()
    with torch.no_grad():
        return torch.compile(f, backend="aot_eager", fullgraph=True, dynamic=True)(x)


class _Module(nn.Module):
    def __init__(self, f: Call) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


def _exported(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        return torch.export.export(_Module(f), (x,), strict=False).module()(_other(x))


class Logged(Tensor):
    """A subclass whose results are of it."""


def _subclass(f: Call, x: Tensor) -> Any:
    with torch.no_grad():
        y = f(x.as_subclass(Logged))
    return type(y), y.as_subclass(Tensor)


class _Negated(TorchFunctionMode):
    """Turns the sign of every float that a function gives."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return -found if func in (torch.matmul, F.linear, torch.bmm, F.relu) else found


def _function_mode(f: Call, x: Tensor) -> Any:
    with torch.no_grad(), _Negated():
        return f(x)


def _default_device(f: Call, x: Tensor) -> Any:
    with torch.no_grad(), torch.device("cpu"):
        return f(x)


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)
        return func(*args, **(kwargs or {}))


def _dispatch_mode(f: Call, x: Tensor) -> Any:
    with torch.no_grad(), _Seen() as seen:
        return f(x), seen.products


FOLLOWERS = [
    _called, _without_gradients, _in_inference_mode, _backward, _vjp, _jvp, _jvp_without_gradients, _dual, _beside_a_dual, _vmap,
    _jacobian, _functionalized, _autocast, _traced, _subclass, _function_mode, _default_device, _dispatch_mode,
]  # fmt: skip


def _same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            _same(one, other)
    elif isinstance(wanted, Tensor):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape and found.device == wanted.device
        assert found.is_meta or torch.equal(found, wanted)
    else:
        assert found == wanted


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("follow", FOLLOWERS, ids=lambda f: f.__name__.strip("_"))
def test_followed(path: str, follow: Callable[[Call, Tensor], Any]) -> None:
    fast, slow, x = PATHS[path]("cpu")
    _same(follow(fast, x), follow(slow, x))


@pytest.fixture(params=["no name of torch's own", "nothing native"])
def less(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "nothing native":
        monkeypatch.setattr(native, "scores", None)
        monkeypatch.setattr(native, "core", None)
        return
    monkeypatch.setattr(fast_path, "_modes", None)
    monkeypatch.setattr(fast_path, "_hooks", [None])
    monkeypatch.setattr(fast_path, "forward_ad_is_on", lambda: True)
    monkeypatch.setattr(products_module, "_onednn", None)


@pytest.mark.parametrize("path", PATHS)
def test_with_less(path: str, less: None) -> None:
    fast, slow, x = PATHS[path]("cpu")
    for follow in FOLLOWERS:
        _same(follow(fast, x), follow(slow, x))


@torch.no_grad()
def test_without_followers_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else this table would compare torch with itself."""
    taken: list[str] = []

    def watch(place: Any, name: str) -> None:
        if (real := getattr(place, name)) is not None:
            monkeypatch.setattr(place, name, lambda *args, **more: taken.append(name) or real(*args, **more))

    expected = {"convolution, fused": "nan_to_num_", "matmul": "_onednn", "similarity": "_onednn", "linear": "_onednn", "linear with relu": "_onednn", "dense, fused": "_onednn",
                "weighted embeddings": "embedding_bag", "best of products": "native_top_k", "top_k": "_largest_of_rows"}  # fmt: skip
    for place, name in (
        (products_module, "_onednn"),
        (F, "embedding_bag"),
        (torch, "nan_to_num_"),
        (top_k_module, "native_top_k"),
        (top_k_module, "_largest_of_rows"),
    ):
        watch(place, name)
    for path, name in expected.items():
        taken.clear()
        fast, _, x = PATHS[path]("cpu")
        fast(x)
        assert name in taken or (name == "_onednn" and products_module._onednn is None), path


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("capture", [_compiled, _exported], ids=["compile", "export"])
def test_captured(path: str, capture: Callable[[Call, Tensor], Any]) -> None:
    fast, slow, x = PATHS[path]("cpu")
    _same(capture(fast, x), capture(slow, x))


@pytest.mark.parametrize("path", PATHS)
def test_meta(path: str) -> None:
    fast, slow, x = PATHS[path]("meta")
    _same(fast(x), slow(x))


# -- layers -------------------------------------------------------------------------------------------------------------


class _Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _as_it_is(layer: nn.Linear) -> nn.Module:
    return layer


def _hooked(layer: nn.Linear) -> nn.Module:
    layer.register_forward_hook(lambda layer, args, output: output + 7)
    return layer


def _hooked_before(layer: nn.Linear) -> nn.Module:
    layer.register_forward_pre_hook(lambda layer, args: (args[0] + 1,))
    return layer


def _patched(layer: nn.Linear) -> nn.Module:
    layer.forward = lambda input: input[:, :3] - 5  # type: ignore[method-assign]
    return layer


def _parametrized(layer: nn.Linear) -> nn.Module:
    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    nn.utils.parametrize.register_parametrization(layer, "weight", Halved())
    return layer


def _subclassed(layer: nn.Linear) -> nn.Module:
    made = _Doubled(DIM, OUT)
    made.load_state_dict(layer.state_dict())
    return made


@pytest.mark.parametrize("change", [_as_it_is, _hooked, _hooked_before, _patched, _parametrized, _subclassed])
@torch.no_grad()
def test_changed_layers_are_called(change: Callable[[nn.Linear], nn.Module]) -> None:
    layer, x = change(_layer("cpu")), whole(ROWS, DIM)
    _same(linear(layer, x), layer(x))
    _same(linear_relu(layer, x), F.relu(layer(x)))
    assert untouched(layer, nn.Linear) is (change is _as_it_is)


@torch.no_grad()
def test_hooks_of_all_modules() -> None:
    layer, x = _layer("cpu"), whole(ROWS, DIM)
    handle = nn.modules.module.register_module_forward_hook(lambda layer, args, output: output - 1)
    try:
        _same(linear_relu(layer, x), F.relu(layer(x)))
    finally:
        handle.remove()


# -- the predicate itself -----------------------------------------------------------------------------------------------


def test_readable_and_plain() -> None:
    x, ids = torch.ones(3), torch.arange(3)
    assert readable() and readable(x, ids) and plain(x, ids) and plain(torch.zeros(0)) and plain(nn.Parameter(x, False))
    assert not readable(x.to("meta")) and not readable(x.as_subclass(Logged))
    weight = nn.Parameter(x)
    assert readable(weight) and not plain(x, weight)
    with torch.no_grad():
        assert plain(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert readable(ids) and not plain(x)


def test_checks_are_made_in_training_too() -> None:
    """A gradient elsewhere does not make ids unreadable."""
    with torch.autocast("cpu", torch.bfloat16), _Negated():
        assert readable(torch.arange(3))
    ids = torch.arange(3)
    counted = torch.func.grad(lambda w: (w * readable(ids)).sum())
    assert counted(torch.ones(2)).tolist() == [1, 1]
