"""A BERT by hand, or one of its kin, as the porter lifts it: for tests that need no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.graph.spec import TowerSpec
from torch_towers.tower import Tower

VOCAB, PLACES = 50, 16


def bert(
    layers: int = 2, dim: int = 8, heads: int = 2, *, form: str = "erf", pooling: str = "mean",
    eps: float = 1e-12, narrow: int = 0, run: Sequence[int] = (), lowest: int = 0,
) -> Tower:  # fmt: skip
    """`ids, mask [batch, length] -> y [batch, dim]`, of length 1.

    `pooling` "pooler" is Google's own spelling: token types, projections around the op, a dense layer with tanh over the first place.
    `narrow` is the width of embeddings that a product widens, as ELECTRA has them; `run` is which layer runs at each step, as
    ALBERT's run again (else `layers` of them, each once);
    `lowest` is the id that its preprocessing makes of all that are lower.
    """
    spelled = pooling == "pooler"
    made = _Made(dim, eps)
    wide = narrow or dim
    x = made.module("words", "Embedding", {"num_embeddings": VOCAB, "embedding_dim": wide}, "ids")
    length = made.node("length", "size", "ids", axis=1)
    places = made.module("places", "PositionEmbedding", {"num_embeddings": PLACES, "embedding_dim": wide}, length)
    x = made.node("embeddings", "add", x, places)
    if spelled:
        zeros = made.node("zeros", "zeros_like", "ids")
        kinds = made.module("types", "Embedding", {"num_embeddings": 2, "embedding_dim": wide}, zeros)
        x = made.node("embeddings_1", "add", x, kinds)
    x = made.norm("embeddings_norm", x)
    if narrow:
        x = made.linear("wider", narrow, dim, x)
    row = made.node("row", "unsqueeze", "mask", axis=1)
    mask = made.node("allowed", "unsqueeze", row, axis=1)
    sizes = dict.fromkeys(("query_features", "key_features", "value_features", "out_features"), dim)
    sizes |= {"heads": heads, "key_dim": dim // heads, "value_dim": dim // heads}
    for i, own in enumerate(run or range(layers)):
        at, made.layer = f"layer_{i}", f"layer_{own}"
        scale = {"scale": (dim // heads) ** -0.5}
        if spelled:
            found = made.projected(f"{at}.attention", heads, scale["scale"], x, mask)
        else:
            found = made.module(f"{at}.attention", "MultiHeadAttention", {**sizes, **scale}, x, x, x, mask)
        x = made.norm(f"{at}.attention_norm", made.node(f"{at}.add", "add", x, found))
        inner = made.linear(f"{at}.intermediate", dim, 4 * dim, x)
        inner = made.linear(f"{at}.output", 4 * dim, dim, made.node(f"{at}.gelu", "gelu", inner, form=form))
        x = made.norm(f"{at}.output_norm", made.node(f"{at}.add_1", "add", x, inner))
    if pooling == "mean":
        column = made.node("column", "unsqueeze", "mask", axis=2)
        floats = made.node("floats", "cast", column, dtype="float32")
        total = made.node("total", "weighted_sum", x, "mask")
        x = made.node("pooled", "div", total, made.node("count", "reduce_sum", floats, axes=(1,), keepdim=False))
    else:
        x = made.node("pooled", "select", x, 0, axis=1)
    if spelled:
        x = made.node("tanh", "tanh", made.linear("pooler", dim, dim, x))
    x = made.module("normalized", "L2Normalize", {"axes": (-1,), "limit": 1e12}, x)
    inputs = (TensorSpec("ids", "int64", ("batch", None)), TensorSpec("mask", "bool", ("batch", None)))
    encoder = Graph(inputs, tuple(made.nodes), {"y": x}, made.modules)
    before = Graph(inputs, (Node("kept", "maximum", ("ids", lowest)),), {"ids": "kept", "mask": "mask"})
    return Tower(TowerSpec(before, encoder, None, inputs, (TensorSpec("y", "float32", ("batch", dim)),)), made.store)


class _Made:
    def __init__(self, dim: int, eps: float) -> None:
        self.dim, self.eps = dim, eps
        self.layer = ""  # whose modules the layer's are
        self.nodes: list[Node] = []
        self.modules: dict[str, ModuleSpec] = {}
        self.store: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(0)

    def node(self, name: str, op: str, *inputs: object, **attrs: object) -> str:
        self.nodes.append(Node(name, op, inputs, attrs))
        return name

    def module(self, name: str, kind: str, args: dict[str, object], *inputs: object) -> str:
        from torch_towers.graph.registry import MODULES

        held = f"{self.layer}.{name.partition('.')[2]}" if "." in name else name
        if held not in self.modules:
            self.modules[held] = ModuleSpec(kind, args)
            for key, value in MODULES[kind].function(**args).state_dict().items():
                self.store[f"{held}.{key}"] = torch.randn(value.shape, generator=self.random) * 0.5
        return self.node(name, "module", *inputs, module=held)

    def projected(self, name: str, heads: int, scale: float, x: str, mask: str) -> str:
        parts: list[str] = []
        for part in ("query", "key", "value"):
            whole = self.linear(f"{name}.{part}", self.dim, self.dim, x)
            parts.append(self.node(f"{name}.{part}_heads", "split_last", whole, sizes=(heads, self.dim // heads)))
        found = self.node(f"{name}.scores", "attention", *parts, mask, scale=scale, heads_last=True)
        return self.linear(f"{name}.out", self.dim, self.dim, self.node(f"{name}.joined", "join_last", found, count=2))

    def norm(self, name: str, x: str) -> str:
        return self.module(name, "LayerNorm", {"normalized_shape": (self._width(x),), "eps": self.eps}, x)

    def _width(self, x: str) -> int:
        """The width of embeddings, which stand before everything else, and of all behind them."""
        return self.store["words.weight"].shape[1] if x.startswith("embeddings") else self.dim

    def linear(self, name: str, inner: int, outer: int, x: str) -> str:
        return self.module(name, "Linear", {"in_features": inner, "out_features": outer, "bias": True}, x)
