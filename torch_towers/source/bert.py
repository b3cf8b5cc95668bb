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


@dataclass(frozen=True, slots=True)
class Bert:
    """A BERT inside an encoder: `config` and `weights` as transformers has them, and where its values are in the graph.

    `ids` is the input of the encoder, `mask` the node that says what attention may take, `hidden` the last hidden state.
    `pooling` is "mean" or "cls", `normalized` whether the embedding has length 1.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    ids: str
    mask: str | None
    hidden: str
    pooling: str
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
        words = self._one([n for n in self.graph.nodes if self._kind(n) == "Embedding"], "a table of words")
        if str(words.inputs[0]) not in {spec.name for spec in self.graph.inputs}:
            raise _other("the ids of its words are computed in the encoder")
        self._put("embeddings.word_embeddings", words)
        total = self._only_reader(words.name, "add")
        places = self._one([n for n in self._operands(total) if self._kind(n) == "PositionEmbedding"], "positions")
        self._put("embeddings.position_embeddings", places)
        x = self._norm(total, "embeddings.LayerNorm")
        width = self.weights["embeddings.word_embeddings.weight"].shape[1]
        self.weights["embeddings.token_type_embeddings.weight"] = words_like(self.weights, width)
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
        pooling, normalized = self._pooled(x)
        config = {
            "vocab_size": len(self.weights["embeddings.word_embeddings.weight"]),
            "hidden_size": width, "num_hidden_layers": count, "num_attention_heads": heads, "intermediate_size": inner,
            "hidden_act": activation, "max_position_embeddings": len(self.weights["embeddings.position_embeddings.weight"]),
            "type_vocab_size": 1, "layer_norm_eps": self.epsilons.pop(), "pad_token_id": 0,
        }  # fmt: skip
        return Bert(config, self.weights, str(words.inputs[0]), mask, x, pooling, normalized)

    def _layer(self, x: str, attention: Node, name: str, width: int) -> tuple[str, tuple[int, int, str], str | None]:
        args = self.graph.modules[str(attention.attrs["module"])].args
        heads, dim = int(args["heads"]), int(args["key_dim"])
        usual = abs(float(args["scale"]) - dim**-0.5) < 1e-6 * dim**-0.5
        if not usual or heads * dim != width or args["value_dim"] != dim or not args.get("bias", True):
            raise _other(f"the attention of {name} has other sizes or another scale than BERT's")
        held = str(attention.attrs["module"])
        for ours, theirs in (
            ("query", "self.query"),
            ("key", "self.key"),
            ("value", "self.value"),
            ("attention_output", "output.dense"),
        ):
            self._copy(f"{held}.{ours}", f"{name}.attention.{theirs}")
        middle = self._norm(self._added(x, attention), f"{name}.attention.output.LayerNorm")
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
        mask = attention.inputs[3] if len(attention.inputs) > 3 else None
        return after, (heads, inner, activation), None if mask is None else str(mask)

    def _pooled(self, hidden: str) -> tuple[str, bool]:
        """How one vector is made of the hidden state."""
        first = self._one(self.readers.get(hidden, []), "one pooling")
        (output,) = self.graph.outputs.values() if len(self.graph.outputs) == 1 else (None,)
        node = self.nodes.get(str(output))
        normalized = node is not None and self._kind(node) == "L2Normalize"
        end = str(node.inputs[0]) if node is not None and normalized else str(output)
        if first.op == "select" and first.inputs[1] == 0 and first.attrs.get("axis") == 1 and first.name == end:
            return "cls", normalized
        last = self.nodes.get(end)
        if first.op in ("weighted_sum", "where", "mul") and last is not None and last.op in ("div", "div_no_nan"):
            return "mean", normalized  # compared when it is written
        raise _other("what follows its last layer is neither an average over the mask nor the first place")

    def _attention(self, x: str) -> Node | None:
        found = [
            n for n in self.readers.get(x, []) if self._kind(n) == "MultiHeadAttention" and n.inputs[:3] == (x, x, x)
        ]
        return found[0] if len(found) == 1 else None

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
