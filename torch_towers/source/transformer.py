"""Recognizes an encoder that is a stack of attention layers, from the structure of its graph; names do not matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from torch_towers.errors import TorchTowersError
from torch_towers.formats.npz import to_numpy
from torch_towers.graph.graph import Graph, Node, node_of, references
from torch_towers.source.layout import UNKNOWN, Known
from torch_towers.source.simplify import simplified
from torch_towers.tower import Tower

Weights = Mapping[str, Tensor]
"""The tensors of one layer by its own names for them: "weight", "bias"."""

_GELU = {"erf": "gelu", "erfc": "gelu", "tanh": "gelu_pytorch_tanh"}
_ACTIVATIONS = frozenset(("relu", "silu", "tanh"))
_QUICK_GELU = 1.702
_MOVES = frozenset((
    "split_last", "join_last", "transpose", "unsqueeze", "squeeze", "reshape", "broadcast_to", "tile", "identity",
))  # fmt: skip
_NORMS = {"LayerNorm": False, "RMSNorm": True}


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention: its projections "query", "key", "value" and "out" by the names of their layers, and its sizes.

    `mask` is the node of the attention mask, `result` the node after the output projection.
    """

    layers: Mapping[str, str]
    heads: int
    dim: int
    scale: float
    mask: str | None
    result: Node


@dataclass(frozen=True, slots=True)
class Layer:
    """Attention and feed-forward with residual connections. `norm_first` means pre-norm.

    `layers` are the names of its parts: "query", "key", "value", "out", "attention_norm", "first", "gate" (for gated
    activations), "second", "feed_forward_norm". Layers with the same names share weights.
    """

    norm_first: bool
    layers: Mapping[str, str]
    attention: Attention
    activation: str


@dataclass(frozen=True, slots=True)
class Images:
    """Images split into patches: height, width, patch size and channels."""

    sizes: tuple[int, int]
    patch: int
    channels: int


@dataclass(frozen=True, slots=True)
class Pooling:
    """How the hidden state is pooled: "mean", "cls" (the first position), "max", "place" (a position given by an input), or "".

    Optionally followed by a linear layer (`dense`), tanh and L2 normalization (`normalized`).
    """

    kind: str
    dense: Weights | None
    tanh: bool
    normalized: bool


@dataclass(frozen=True, slots=True)
class Transformer:
    """An encoder as a stack of attention layers.

    `parts` are the weights outside the layers: "words" or "patches", "class", "positions", "types", "norm", "projection",
    "final_norm", "relative" (relative position bias). `ids` is the encoder's input of ids or images, `types` that of
    token types (None: all are of type 0), `distances` that of distances; `mask` the node of the attention mask.
    `hidden` is the last hidden state.
    """

    parts: Mapping[str, Weights]
    layers: tuple[Layer, ...]
    weights: tuple[Mapping[str, Weights], ...]
    ids: str
    types: str | None
    distances: str | None
    mask: str | None
    eps: float
    rms: bool
    images: Images | None
    hidden: str
    pooling: Pooling

    @property
    def width(self) -> int:
        """The size of the hidden state."""
        return len(next(iter(self.weights[0]["out"].values())))

    @property
    def shared(self) -> bool:
        """Whether layers share weights."""
        return len({tuple(layer.layers.values()) for layer in self.layers}) < len(self.layers)


def found_transformer(tower: Tower) -> Transformer:
    """The tower's encoder as a stack of attention layers. Errors: `TorchTowersError` names the part that does not fit."""
    simple = simplified(tower)
    tensors = tower.encoder.tensors()
    tensors |= {name: tensors[theirs] for name, theirs in simple.aliases.items()}
    return _Reader(simple.graph, simple.known, tensors).transformer()


class _Reader:
    """Reads the graph from the embeddings onwards, layer by layer."""

    def __init__(self, graph: Graph, known: Mapping[str, Known], tensors: Mapping[str, Tensor]) -> None:
        self.graph, self.known, self.tensors = graph, known, tensors
        self.nodes = {node.name: node for node in graph.nodes}
        self.inputs = {spec.name for spec in graph.inputs}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for ref in dict.fromkeys(references(node.inputs)):
                self.readers.setdefault(node_of(ref), []).append(node)
        self.parts: dict[str, Weights] = {}
        self.types: str | None = None
        self.norms: set[tuple[float, bool]] = set()

    def transformer(self) -> Transformer:
        ids, images, x = self._embedded()
        x = self._prepared(x)
        layers: list[Layer] = []
        while (found := self._layer(x)) is not None:
            layer, x = found
            layers.append(layer)
        if not layers:
            raise _other("no attention follows its embeddings")
        alike = {
            (
                one.norm_first,
                one.activation,
                one.attention.heads,
                one.attention.dim,
                one.attention.scale,
                "gate" in one.layers,
            )
            for one in layers
        }
        if len(alike) > 1:
            raise _other("its layers differ from each other")
        masks = {layer.attention.mask for layer in layers}
        distances = self._distances(masks)
        if len({self._form(mask) for mask in masks}) > 1 and "relative" not in self.parts:
            raise _other("its layers have different masks")
        if layers[0].norm_first and (norm := self._norm_behind(x)) is not None:
            self.parts["final_norm"], x = self._weights(norm), norm.name
        if len(self.norms) != 1:
            raise _other("its norms are of different kinds, or add different numbers")
        ((eps, rms),) = self.norms
        weights = tuple({part: self._held(name) for part, name in layer.layers.items()} for layer in layers)
        mask = layers[0].attention.mask
        return Transformer(
            self.parts, tuple(layers), weights, ids, self.types, distances, mask, eps, rms, images, x, self._pooling(x)
        )

    # -- embeddings ---------------------------------------------------------------------------------------------------

    def _embedded(self) -> tuple[str, Images | None, Node]:
        """The input of ids or images, the image sizes, and the node of the embeddings before any addition."""
        patches = [node for node in self.graph.nodes if self._kind(node) == "Conv2d" and node.inputs[0] in self.inputs]
        if patches:
            return self._patches(self._one(patches, "a convolution of its images"))
        tables = [node for node in self.graph.nodes if self._kind(node) == "Embedding" and self._of_rows(node)]
        words = max(tables, key=lambda node: int(self._args(node)["num_embeddings"]), default=None)
        if words is None:
            raise _other("it has no table of words that reads ids [batch, length]")
        self.parts["words"] = self._weights(words)
        return str(words.inputs[0]), None, words

    def _of_rows(self, node: Node) -> bool:
        """Whether a table is indexed by an input of ids `[batch, length]`."""
        ref = node.inputs[0]
        dims = self.known.get(str(ref), UNKNOWN).dims
        return ref in self.inputs and dims is not None and len(dims) == 2 and isinstance(dims[0], str)

    def _patches(self, conv: Node) -> tuple[str, Images | None, Node]:
        args, dims = self._args(conv), self.known.get(str(conv.inputs[0]), UNKNOWN).dims
        kernel, stride = tuple(args["kernel_size"]), tuple(args["stride"])
        if dims is None or len(dims) != 4 or not all(isinstance(dim, int) for dim in dims[1:]):
            raise _other("the sizes of its images are not known")
        if len({*kernel, *stride}) > 1 or args.get("padding", "VALID") != "VALID" or args.get("groups", 1) != 1:
            raise _other("its patches overlap, or are not square")
        self.parts["patches"] = self._weights(conv)
        joined = self._forward(conv)
        first = self._back(str(joined.inputs[0]))[-1:]
        token = first[0] if joined.op == "concat" and first and first[0].op == "parameter" else None
        if token is None or joined.attrs.get("axis") != 1:
            raise _other("no token stands before its patches")
        self.parts["class"] = {"weight": self.tensors[str(token.attrs["tensor"])].detach()}
        height, width, channels = (int(str(dim)) for dim in dims[1:])
        return str(conv.inputs[0]), Images((height, width), int(kernel[0]), channels), joined

    def _prepared(self, first: Node) -> str:
        """The input of the first layer: summed embeddings, optionally normalized and projected."""
        total = first
        while (added := self._added_embeddings(total)) is not None:
            total, leaves = added
            for leaf in leaves:
                self._add_embedding(leaf)
        x = total.name
        if (norm := self._norm_behind(x)) is not None and len(self.readers[x]) == 1:
            self.parts["norm"], x = self._weights(norm), norm.name
        after = self.readers.get(x, [])
        if len(after) == 1 and self._kind(after[0]) == "Linear":
            self.parts["projection"], x = self._weights(after[0]), after[0].name
        return x

    def _added_embeddings(self, total: Node) -> tuple[Node, list[Node]] | None:
        """The sum of the embeddings, and the tables and weights added to it."""
        sums = [node for node in self.readers.get(total.name, []) if node.op == "add"]
        if len(sums) != 1:
            return None
        others = [ref for ref in references(sums[0].inputs) if node_of(ref) != total.name]
        leaves = [leaf for ref in others for leaf in self._leaves(ref)]
        tables = ("Embedding", "PositionEmbedding")
        ok = all(self._kind(leaf) in tables or leaf.op in ("parameter", "constant") for leaf in leaves)
        return (sums[0], leaves) if ok and leaves else None

    def _leaves(self, ref: str) -> list[Node]:
        """The operands of a nested sum."""
        chain = self._back(ref)
        if not chain:
            return []
        if chain[-1].op != "add":
            return [chain[-1]]
        return [leaf for part in references(chain[-1].inputs) for leaf in self._leaves(part)]

    def _add_embedding(self, node: Node) -> None:
        """Registers positions or token types, depending on the lookup's ids."""
        kind = self._kind(node)
        if kind == "Embedding":
            ref = str(node.inputs[0])
            source = self._back(ref)[-1:] or None
            if self._of_rows(node) or (source is not None and source[0].op == "zeros_like"):
                self._place("types", self._weights(node))
                self.types = ref if ref in self.inputs else None
                return
            dims = self.known.get(ref, UNKNOWN).dims
            if dims not in ((1, self._args(node)["num_embeddings"]), (self._args(node)["num_embeddings"],)):
                raise _other(f"{node.name} is added to its words")
            self._place("positions", self._weights(node))
        elif kind == "PositionEmbedding":
            self._place("positions", self._weights(node))
        else:
            table = self.tensors[str(node.attrs["tensor"])].detach()
            if table.ndim > 2 and set(table.shape[:-2]) == {1}:
                table = table.reshape(table.shape[-2:])
            if table.ndim != 2:
                raise _other(f"{node.name} is added to its words")
            self._place("positions", {"weight": table})

    def _place(self, part: str, weights: Weights) -> None:
        if part in self.parts:
            raise _other(f"{part} are added twice to its words")
        self.parts[part] = weights

    # -- layers -------------------------------------------------------------------------------------------------------

    def _layer(self, x: str) -> tuple[Layer, str] | None:
        """The layer that reads `x`, and its result; None if no attention does."""
        norm = self._norm_behind(x)
        before = x if norm is None else norm.name
        attention = self._attention(before)
        if attention is None:
            return None
        parts = dict(attention.layers)
        middle = self._added(x, attention.result).name
        second_norm = self._norm_behind(middle)
        if second_norm is None:
            raise _other(f"no norm follows {middle}")
        if norm is None:
            parts["attention_norm"] = str(second_norm.attrs["module"])
            middle = second_norm.name
            activation, last = self._feed_forward(middle, parts)
            result = self._added(middle, last)
            if (after := self._norm_behind(result.name)) is None:
                raise _other(f"no norm follows {result.name}")
            parts["feed_forward_norm"] = str(after.attrs["module"])
        else:
            parts["attention_norm"] = str(norm.attrs["module"])
            parts["feed_forward_norm"] = str(second_norm.attrs["module"])
            activation, last = self._feed_forward(second_norm.name, parts)
            after = self._added(middle, last)
        return Layer(norm is not None, parts, attention, activation), after.name

    def _feed_forward(self, x: str, parts: dict[str, str]) -> tuple[str, Node]:
        """Its activation and its last product; the names of its layers go into `parts`."""
        activated: list[tuple[Node, str, Node]] = []
        plain: list[Node] = []
        for node in self.readers.get(x, []):
            if self._kind(node) == "Linear":
                found = self._activation(node)
                plain += [node] if found is None else []
                activated += [] if found is None else [(node, *found)]
        if len(activated) != 1 or len(plain) > 1:
            raise _other(f"{x} goes into no feed-forward of one activation that is known")
        (first, activation, value) = activated[0]
        parts["first"] = str(first.attrs["module"])
        if plain:
            parts["gate"] = str(plain[0].attrs["module"])
            value = self._one(
                [node for node in self.readers.get(plain[0].name, []) if node.op == "mul"], "a gate that is multiplied"
            )
        second = self._one(
            [node for node in self.readers.get(value.name, []) if self._kind(node) == "Linear"],
            f"a product behind {value.name}",
        )
        parts["second"] = str(second.attrs["module"])
        return activation, second

    def _activation(self, product: Node) -> tuple[str, Node] | None:
        """The activation after a product, by its name in transformers, and its node."""
        after = self.readers.get(product.name, [])
        if len(after) == 1:
            (node,) = after
            name = _GELU.get(str(node.attrs.get("form"))) if node.op == "gelu" else node.op
            return (name, node) if name is not None and (node.op == "gelu" or name in _ACTIVATIONS) else None
        scaled = next((node for node in after if node.op == "mul" and self._number(node, _QUICK_GELU)), None)
        gate = scaled and next((node for node in self.readers.get(scaled.name, []) if node.op == "sigmoid"), None)
        product_of = [node for node in after if gate and {*map(str, node.inputs)} == {product.name, gate.name}]
        return ("quick_gelu", product_of[0]) if len(after) == 2 and product_of else None

    def _number(self, node: Node, value: float) -> bool:
        return any(isinstance(one, float) and abs(one - value) < 1e-6 for one in node.inputs)

    def _attention(self, x: str) -> Attention | None:
        """The attention that reads `x` alone: one layer, or projections around the op."""
        whole = [node for node in self.readers.get(x, []) if self._kind(node) == "MultiHeadAttention"]
        if len(whole) == 1 and whole[0].inputs[:3] == (x, x, x):
            (node,) = whole
            args, held = self._args(node), str(node.attrs["module"])
            if args["value_dim"] != args["key_dim"]:
                return None
            parts = {part: f"{held}.{part}" for part in ("query", "key", "value")} | {"out": f"{held}.attention_output"}
            return Attention(parts, int(args["heads"]), int(args["key_dim"]), float(args["scale"]), _mask(node), node)
        near = {node.name for node in self._reached(x, 4)}
        for node in self.graph.nodes:
            if node.op == "attention" and node.name in near:
                chains = [self._back(str(ref)) for ref in node.inputs[:3]]
                if all(chain and self._kind(chain[-1]) == "Linear" and chain[-1].inputs == (x,) for chain in chains):
                    return self._spelled(node, chains)
        return None

    def _reached(self, x: str, steps: int) -> Iterable[Node]:
        """The nodes reachable from `x` within `steps` steps."""
        found: dict[str, Node] = {}
        last = [x]
        for _ in range(steps):
            new = {node.name: node for ref in last for node in self.readers.get(ref, []) if node.name not in found}
            found |= new
            last = [*new]
        return found.values()

    def _spelled(self, node: Node, chains: list[list[Node]]) -> Attention | None:
        parted = [item.attrs["sizes"] for chain in chains for item in chain if item.op == "split_last"]
        out = self._forward(node)
        if len(parted) != 3 or len(set(parted)) != 1 or len(parted[0]) != 2 or self._kind(out) != "Linear":
            return None
        names = [str(item.attrs["module"]) for item in (*(chain[-1] for chain in chains), out)]
        parts: dict[str, str] = dict(zip(("query", "key", "value", "out"), names, strict=True))
        return Attention(parts, int(parted[0][0]), int(parted[0][1]), float(node.attrs["scale"]), _mask(node), out)

    def _distances(self, masks: set[str | None]) -> str | None:
        """The input of relative positions, if the layers add a relative position bias to their scores."""
        found: set[str] = set()
        for mask in masks:
            for leaf in self._leaves(mask) if mask is not None else []:
                if self._kind(leaf) == "Embedding":
                    self.parts["relative"] = self._weights(leaf)
                    found.add(str(leaf.inputs[0]))
        return found.pop() if len(found) == 1 and found <= self.inputs else None

    # -- behind the layers --------------------------------------------------------------------------------------------

    def _pooling(self, hidden: str) -> Pooling:
        """How the hidden state is pooled to one vector."""
        if len(self.graph.outputs) != 1:
            raise _other("it has several outputs")
        node = self.nodes[node_of(next(iter(self.graph.outputs.values())))]
        normalized = self._kind(node) == "L2Normalize"
        node = self._operands(node)[0] if normalized else node
        tanh = node.op == "tanh"
        node = self._operands(node)[0] if tanh else node
        dense = self._weights(node) if self._kind(node) == "Linear" else None
        node = self._operands(node)[0] if dense is not None else node
        if tanh and dense is None:
            raise _other("it is tanh of what was pooled")
        return Pooling(self._pooled(node, hidden), dense, tanh, normalized)

    def _pooled(self, node: Node, hidden: str) -> str:
        if node.name == hidden:
            return ""
        if node.op == "select" and node.inputs[:2] == (hidden, 0) and node.attrs.get("axis") == 1:
            return "cls"
        averaged = self._kind(node) in ("GlobalAveragePooling", "MaskedAverage") and node.inputs[0] == hidden
        sums = node.op in ("div", "div_no_nan") or averaged
        if sums and self._made_of(node, hidden, ("where", "mul", "weighted_sum", "reduce_sum")):
            return "mean"  # compared when it is written, as all here is
        if self._kind(node) == "GlobalMaxPooling" and self._made_of(node, hidden, ("where", "add")):
            return "max"
        if self._made_of(node, hidden, ("gather", "gather_nd", "select")):
            return "place"
        raise _other("what follows its last layer is no average or maximum over its places, and none of them")

    def _made_of(self, node: Node, hidden: str, ops: tuple[str, ...]) -> bool:
        """Whether a node is computed from the hidden state with only these ops and data movement."""
        while hidden not in map(node_of, references(node.inputs)):
            before = [one for one in self._operands(node) if one.op in _MOVES or one.op in ops]
            if not before:
                return False
            node = before[0]
        return True

    # -- the graph ----------------------------------------------------------------------------------------------------

    def _back(self, ref: str) -> list[Node]:
        """Skips data movement backwards, to the node that computes the value."""
        found: list[Node] = []
        while (node := self.nodes.get(node_of(ref))) is not None:
            found.append(node)
            if node.op not in _MOVES:
                break
            ref = str(node.inputs[0])
        return found

    def _forward(self, node: Node) -> Node:
        """Skips data movement forwards, to the first node that computes something."""
        node = self._one(self.readers.get(node.name, []), f"one value behind {node.name}")
        while node.op in _MOVES:
            node = self._one(self.readers.get(node.name, []), f"one value behind {node.name}")
        return node

    def _added(self, x: str, other: Node) -> Node:
        sums = [node for node in self.readers.get(other.name, []) if node.op == "add"]
        node = self._one(sums, f"one sum behind {other.name}")
        if {*map(str, node.inputs)} != {x, other.name}:
            raise _other(f"{other.name} is not added to what it was made of")
        return node

    def _form(self, operand: Any) -> Any:
        """A value's expression without node names, with constants by value."""
        if isinstance(operand, tuple):
            return tuple(map(self._form, operand))  # type: ignore[reportUnknownArgumentType]
        node = self.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        if node is None:
            return repr(operand)
        if node.op == "constant":
            value = self.tensors[str(node.attrs["tensor"])]
            return str(value.dtype), tuple(value.shape), to_numpy(value).tobytes()
        return node.op, operand.partition(":")[2], repr(sorted(node.attrs.items())), self._form(node.inputs)

    def _norm_behind(self, x: str) -> Node | None:
        """The norm that reads a value, if any."""
        found = [node for node in self.readers.get(x, []) if self._kind(node) in _NORMS]
        if len(found) != 1:
            return None
        args = self._args(found[0])
        self.norms.add((float(str(np.float32(args["eps"]))), _NORMS[self._kind(found[0])]))
        return found[0]

    def _weights(self, node: Node) -> Weights:
        return self._held(str(node.attrs["module"]))

    def _held(self, name: str) -> Weights:
        parts = ("weight", "bias")
        return {part: self.tensors[f"{name}.{part}"].detach() for part in parts if f"{name}.{part}" in self.tensors}

    def _operands(self, node: Node) -> list[Node]:
        found = [self.nodes[node_of(ref)] for ref in references(node.inputs) if node_of(ref) in self.nodes]
        if not found:
            raise _other(f"{node.name} is made of the encoder's inputs")
        return found

    def _kind(self, node: Node) -> str:
        return self.graph.modules[str(node.attrs["module"])].type if node.op == "module" else ""

    def _args(self, node: Node) -> Mapping[str, Any]:
        return self.graph.modules[str(node.attrs["module"])].args

    def _one(self, nodes: list[Node], what: str) -> Node:
        if len(nodes) != 1:
            raise _other(f"it has not {what}" if not nodes else f"it has more than {what}")
        return nodes[0]


def _mask(node: Node) -> str | None:
    return str(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None


def _other(why: str) -> TorchTowersError:
    return TorchTowersError(f"the encoder is none of transformers' models: {why}")
