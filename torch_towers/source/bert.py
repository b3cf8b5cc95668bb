"""BERT: an encoder that is one, found in its graph by structure, as the weights and sizes of transformers' `BertModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torch_towers.errors import TorchTowersError
from torch_towers.graph.graph import Graph, Node, node_of, references
from torch_towers.source.simplify import simplified
from torch_towers.tower import Tower

_ACTIVATIONS = {"erf": "gelu", "erfc": "gelu", "tanh": "gelu_pytorch_tanh"}


_MOVES = frozenset(("split_last", "join_last", "transpose", "unsqueeze"))


@dataclass(frozen=True, slots=True)
class Dense:
    """A product behind the pooling, and whether tanh follows it."""

    weight: Tensor
    bias: Tensor | None
    tanh: bool


@dataclass(frozen=True, slots=True)
class _Attention:
    """An attention: its four projections by name, its sizes, what it may look at, and the node of its result."""

    layers: tuple[str, ...]
    heads: int
    dim: int
    scale: float
    mask: str | None
    result: Node


@dataclass(frozen=True, slots=True)
class Bert:
    """A BERT inside an encoder: `config` and `weights` as transformers has them, and where its values are in the graph.

    `ids` is the input of the encoder, `mask` the node that says what attention may take, `hidden` the last hidden state.
    `pooling` is "mean" or "cls", `dense` what follows it, `normalized` whether the embedding has length 1.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    ids: str
    mask: str | None
    hidden: str
    pooling: str
    dense: Dense | None
    normalized: bool


def found_bert(tower: Tower) -> Bert:
    """The BERT that the tower's encoder is. Errors: `TorchTowersError` says where it is another model."""
    simple = simplified(tower)
    tensors = tower.encoder.tensors()
    tensors |= {name: tensors[theirs] for name, theirs in simple.aliases.items()}
    return _Reader(simple.graph, tensors).bert()


class _Reader:
    """Reads the graph from the embeddings on, a layer at a time."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        self.graph, self.tensors = graph, tensors
        self.nodes = {node.name: node for node in graph.nodes}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for ref in dict.fromkeys(references(node.inputs)):
                self.readers.setdefault(node_of(ref), []).append(node)
        self.epsilons: set[float] = set()
        self.weights: dict[str, Tensor] = {}

    def bert(self) -> Bert:
        inputs = {spec.name for spec in self.graph.inputs}
        tables = [node for node in self.graph.nodes if self._kind(node) == "Embedding"]
        words = self._one([node for node in tables if str(node.inputs[0]) in inputs], "a table of words")
        self._put("embeddings.word_embeddings", words)
        width = self.weights["embeddings.word_embeddings.weight"].shape[1]
        self.weights["embeddings.token_type_embeddings.weight"] = words_like(self.weights, width)
        total, added = self._sum(words)
        for node in added:
            if self._kind(node) == "PositionEmbedding":
                self._put("embeddings.position_embeddings", node)
            elif node in tables and self._operands(node) and self._operands(node)[0].op == "zeros_like":
                self._put("embeddings.token_type_embeddings", node)
            else:
                raise _other(f"{node.name} is added to its words")
        if "embeddings.position_embeddings.weight" not in self.weights:
            raise _other("it has no positions")
        x = self._norm(total, "embeddings.LayerNorm")
        masks: set[str | None] = set()
        sizes: set[tuple[int, int, str]] = set()
        count = 0
        while (attention := self._attention(x)) is not None:
            x, size, mask = self._layer(x, attention, f"encoder.layer.{count}", width)
            sizes.add(size)
            masks.add(mask)
            count += 1
        if not count or len(sizes) != 1 or len(masks) != 1 or len(self.epsilons) != 1:
            raise _other("its layers are not those of a BERT, or differ from each other")
        (heads, inner, activation), (mask,) = sizes.pop(), masks
        pooling, dense, normalized = self._pooled(x)
        config = {
            "vocab_size": len(self.weights["embeddings.word_embeddings.weight"]),
            "hidden_size": width, "num_hidden_layers": count, "num_attention_heads": heads, "intermediate_size": inner,
            "hidden_act": activation, "max_position_embeddings": len(self.weights["embeddings.position_embeddings.weight"]),
            "type_vocab_size": len(self.weights["embeddings.token_type_embeddings.weight"]), "layer_norm_eps": self.epsilons.pop(), "pad_token_id": 0,
        }  # fmt: skip
        return Bert(config, self.weights, str(words.inputs[0]), mask, x, pooling, dense, normalized)

    def _layer(
        self, x: str, attention: _Attention, name: str, width: int
    ) -> tuple[str, tuple[int, int, str], str | None]:
        usual = abs(attention.scale - attention.dim**-0.5) < 1e-6 * attention.dim**-0.5
        if not usual or attention.heads * attention.dim != width:
            raise _other(f"the attention of {name} has other sizes or another scale than BERT's")
        for ours, theirs in zip(
            attention.layers, ("self.query", "self.key", "self.value", "output.dense"), strict=True
        ):
            self._copy(ours, f"{name}.attention.{theirs}")
        middle = self._norm(self._added(x, attention.result), f"{name}.attention.output.LayerNorm")
        first = self._one(
            [n for n in self.readers.get(middle, []) if self._kind(n) == "Linear"], f"a feed-forward in {name}"
        )
        self._put(f"{name}.intermediate.dense", first)
        active = self._one(self.readers.get(first.name, []), f"an activation in {name}")
        activation = (
            _ACTIVATIONS.get(str(active.attrs.get("form"))) if active.op == "gelu" else {"relu": "relu"}.get(active.op)
        )
        second = self._one(
            [n for n in self.readers.get(active.name, []) if self._kind(n) == "Linear"], f"a second product in {name}"
        )
        if activation is None:
            raise _other(f"the activation of {name} is {active.op}")
        self._put(f"{name}.output.dense", second)
        after = self._norm(self._added(middle, second), f"{name}.output.LayerNorm")
        inner = int(self.graph.modules[str(first.attrs["module"])].args["out_features"])
        return after, (attention.heads, inner, activation), attention.mask

    def _pooled(self, hidden: str) -> tuple[str, Dense | None, bool]:
        """How one vector is made of the hidden state: pooled, perhaps through a product, perhaps of length 1."""
        first = self._one(self.readers.get(hidden, []), "one pooling")
        if len(self.graph.outputs) != 1:
            raise _other("it has several outputs")
        node = self.nodes.get(next(iter(self.graph.outputs.values())))
        normalized = node is not None and self._kind(node) == "L2Normalize"
        node = self._operands(node)[0] if node is not None and normalized else node
        tanh = node is not None and node.op == "tanh"
        node = self._operands(node)[0] if node is not None and tanh else node
        dense = None
        if node is not None and self._kind(node) == "Linear":
            held = str(node.attrs["module"])
            weight, bias = self.tensors[f"{held}.weight"], self.tensors.get(f"{held}.bias")
            dense = Dense(weight.detach().clone(), None if bias is None else bias.detach().clone(), tanh)
            node = self._operands(node)[0]
        if tanh and dense is None:
            raise _other("a tanh of what was pooled")
        if (
            node is not None
            and node is first
            and first.op == "select"
            and (first.inputs[1], first.attrs.get("axis")) == (0, 1)
        ):
            return "cls", dense, normalized
        if first.op in ("weighted_sum", "where", "mul") and node is not None and node.op in ("div", "div_no_nan"):
            return "mean", dense, normalized  # compared when it is written
        raise _other("what follows its last layer is neither an average over the mask nor the first place")

    def _attention(self, x: str) -> _Attention | None:
        """The attention that reads `x` alone: one layer, or projections around the op."""
        whole = [node for node in self.readers.get(x, []) if self._kind(node) == "MultiHeadAttention"]
        if len(whole) == 1 and whole[0].inputs[:3] == (x, x, x):
            (node,) = whole
            held = str(node.attrs["module"])
            args = self.graph.modules[held].args
            if args["value_dim"] != args["key_dim"] or not args.get("bias", True):
                return None
            parts = tuple(f"{held}.{part}" for part in ("query", "key", "value", "attention_output"))
            mask = str(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
            return _Attention(parts, int(args["heads"]), int(args["key_dim"]), float(args["scale"]), mask, node)
        for node in self.graph.nodes:
            if node.op == "attention":
                chains = [self._back(str(ref)) for ref in node.inputs[:3]]
                if all(chain and self._kind(chain[-1]) == "Linear" and chain[-1].inputs == (x,) for chain in chains):
                    return self._spelled(node, chains)
        return None

    def _spelled(self, node: Node, chains: list[list[Node]]) -> _Attention | None:
        parted = [item.attrs["sizes"] for chain in chains for item in chain if item.op == "split_last"]
        out = self._one(self.readers.get(node.name, []), f"one value behind {node.name}")
        while out.op in _MOVES:
            out = self._one(self.readers.get(out.name, []), f"one value behind {out.name}")
        if len(parted) != 3 or len(set(parted)) != 1 or len(parted[0]) != 2 or self._kind(out) != "Linear":
            return None
        parts = tuple(str(item.attrs["module"]) for item in (*(chain[-1] for chain in chains), out))
        mask = str(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
        heads, dim = parted[0]
        return _Attention(parts, int(heads), int(dim), float(node.attrs["scale"]), mask, out)

    def _back(self, ref: str) -> list[Node]:
        """From a value back through what only moves it, to what made it."""
        found: list[Node] = []
        while (node := self.nodes.get(ref)) is not None:
            found.append(node)
            if node.op not in _MOVES:
                break
            ref = str(node.inputs[0])
        return found

    def _sum(self, words: Node) -> tuple[Node, list[Node]]:
        """The sum that a value goes into, and what else is added there."""
        total, added = words, list[Node]()
        while (found := [node for node in self.readers.get(total.name, []) if node.op == "add"]) and len(found) == 1:
            others = [ref for ref in references(found[0].inputs) if node_of(ref) != total.name]
            if len(others) != 1:
                break
            chain = self._back(others[0])
            added.append(chain[-1] if chain else words)
            total = found[0]
        return total, added

    def _added(self, x: str, other: Node) -> Node:
        node = self._only_reader(other.name, "add")
        if {*map(str, node.inputs)} != {x, other.name}:
            raise _other(f"{other.name} is not added to what it was made of")
        return node

    def _norm(self, node: Node, name: str) -> str:
        norm = self._only_reader(node.name, "module")
        if self._kind(norm) != "LayerNorm":
            raise _other(f"no LayerNorm follows {node.name}: its norms do not stand where BERT's are")
        self.epsilons.add(float(self.graph.modules[str(norm.attrs["module"])].args["eps"]))
        self._put(name, norm)
        return norm.name

    def _put(self, name: str, node: Node) -> None:
        self._copy(str(node.attrs["module"]), name)

    def _copy(self, held: str, name: str) -> None:
        for part in ("weight", "bias"):
            if f"{held}.{part}" in self.tensors:
                self.weights[f"{name}.{part}"] = self.tensors[f"{held}.{part}"].detach().clone()

    def _only_reader(self, name: str, op: str) -> Node:
        found = [node for node in self.readers.get(name, []) if node.op == op]
        return self._one(found, f"one {op} behind {name}")

    def _operands(self, node: Node) -> list[Node]:
        return [self.nodes[node_of(ref)] for ref in references(node.inputs) if node_of(ref) in self.nodes]

    def _kind(self, node: Node) -> str:
        return self.graph.modules[str(node.attrs["module"])].type if node.op == "module" else ""

    def _one(self, nodes: list[Node], what: str) -> Node:
        if len(nodes) != 1:
            raise _other(f"it has not {what}" if not nodes else f"it has more than {what}")
        return nodes[0]


def words_like(weights: Mapping[str, Tensor], width: int) -> Tensor:
    """The one row of token types of a tower that has none: zeros."""
    return weights["embeddings.word_embeddings.weight"].new_zeros(1, width)


def _other(why: str) -> TorchTowersError:
    return TorchTowersError(f"the encoder is no BERT as transformers has it: {why}")
