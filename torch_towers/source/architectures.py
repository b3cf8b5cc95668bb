"""The classes of transformers that a stack of attention layers can match, with their configs and weight names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_towers.source.transformer import Transformer, Weights

State = dict[str, Tensor]
_Shared = tuple[str, ...]
"""The names of a layer's parts: the same ones for each run of a layer that is run again."""
Written = tuple[dict[str, Any], State]
"""The arguments of the config, and the weights by their names in the class."""


class DiffersError(Exception):
    """A feature of a stack that the class lacks."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One class of transformers: converts a stack or raises `DiffersError`, and names the result to compare.

    `gives` is "last_hidden_state", which still needs pooling, or the result that is the embedding.
    """

    name: str
    model: str
    config: str
    write: Callable[[Transformer], Written]
    gives: str = "last_hidden_state"


def candidates(found: Transformer) -> tuple[list[tuple[Architecture, Written]], list[str]]:
    """The matching classes, the most specific first, and what rules out the others."""
    fitting: list[tuple[Architecture, Written]] = []
    said: list[str] = []
    for architecture in ARCHITECTURES:
        try:
            fitting.append((architecture, architecture.write(found)))
        except DiffersError as error:
            said.append(f"{architecture.name}: {error}")
    return fitting, said


# -- what the classes have in common --------------------------------------------------------------------------------------


def _need(holds: bool, why: str) -> None:
    if not holds:
        raise DiffersError(why)


def _named(weights: Mapping[str, Weights], names: Mapping[str, str], prefix: str = "") -> State:
    """Weights by their names in the class. Errors: `DiffersError` for a weight that the class lacks."""
    for part in weights:
        _need(part in names, f"it has no {part.replace('_', ' ')}")
    return {f"{prefix}{names[part]}.{name}": value for part, held in weights.items() for name, value in held.items()}


def _layers(found: Transformer, names: Mapping[str, str], prefix: str) -> State:
    state: State = {}
    for i, weights in enumerate(found.weights):
        state |= _named(weights, names, prefix.format(i=i))
    return state


def _usual(found: Transformer, *, norm_first: bool, rms: bool = False) -> None:
    """Checks for the norms and attention of all classes but T5."""
    attention = found.layers[0].attention
    where = "before" if norm_first else "behind"
    _need(found.layers[0].norm_first == norm_first, f"its norms stand {where} what is added")
    _need(found.rms == rms, "its norms are of another kind")
    _need("relative" not in found.parts, "it adds nothing to scores by distance")
    usual = attention.dim**-0.5
    _need(abs(attention.scale - usual) < 1e-6 * usual, f"its attention scales by {usual:.4g}, and this one by {attention.scale:.4g}")  # fmt: skip
    _need(attention.heads * attention.dim == found.width, "its heads together are as wide as the model")


def _of_text(found: Transformer) -> tuple[Tensor, Tensor]:
    """The tables of words and positions."""
    _need(found.images is None, "it reads ids")
    _need("positions" in found.parts, "it adds positions to its words")
    _need(found.weights[0].keys().isdisjoint({"gate"}), "its feed-forward has no gate")
    return found.parts["words"]["weight"], found.parts["positions"]["weight"]


def _sizes(found: Transformer) -> dict[str, Any]:
    """The config fields that most classes share."""
    return {
        "hidden_size": found.width, "num_hidden_layers": len(found.layers),
        "num_attention_heads": found.layers[0].attention.heads, "intermediate_size": len(found.weights[0]["first"]["weight"]),
        "hidden_act": found.layers[0].activation, "layer_norm_eps": found.eps,
    }  # fmt: skip


# -- norms behind what is added: BERT and its kin -------------------------------------------------------------------------

_BERT_EMBEDDINGS = {
    "words": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings", "norm": "LayerNorm",
}  # fmt: skip
_BERT_LAYER = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value", "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm", "first": "intermediate.dense", "second": "output.dense", "feed_forward_norm": "output.LayerNorm",
}  # fmt: skip


def _with_types(found: Transformer) -> dict[str, Weights]:
    """The parts outside the layers; without token types, a table of zeros."""
    words = found.parts["words"]["weight"]
    return {"types": {"weight": words.new_zeros(1, words.shape[1])}, **found.parts}


def _bert_sizes(found: Transformer) -> dict[str, Any]:
    words, positions = _of_text(found)
    _usual(found, norm_first=False)
    _need("norm" in found.parts, "it normalizes its embeddings")
    types = _with_types(found)["types"]["weight"]
    return {
        **_sizes(found), "vocab_size": len(words), "max_position_embeddings": len(positions), "type_vocab_size": len(types),
        "pad_token_id": 0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip


def _bert(found: Transformer) -> Written:
    config = _bert_sizes(found)
    state = _named(_with_types(found), _BERT_EMBEDDINGS, "embeddings.")
    return config, state | _layers(found, _BERT_LAYER, "encoder.layer.{i}.")


def _roberta(found: Transformer) -> Written:
    """RoBERTa numbers positions from 2 and skips the padding id 1."""
    config, state = _bert(found)
    _need("types" not in found.parts and found.eps == 1e-5, "it has one token type, and its norms add 1e-05")
    table = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat([table.new_zeros(2, table.shape[1]), table])
    return {**config, "max_position_embeddings": len(table) + 2, "pad_token_id": 1}, state


def _distilbert(found: Transformer) -> Written:
    sizes = _bert_sizes(found)
    _need(found.eps == 1e-12, "its norms add 1e-12")
    names = {part: name for part, name in _BERT_EMBEDDINGS.items() if part != "types"}
    layer = {
        "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin", "out": "attention.out_lin",
        "attention_norm": "sa_layer_norm", "first": "ffn.lin1", "second": "ffn.lin2", "feed_forward_norm": "output_layer_norm",
    }  # fmt: skip
    config = {
        "vocab_size": sizes["vocab_size"], "max_position_embeddings": sizes["max_position_embeddings"], "dim": sizes["hidden_size"],
        "n_layers": sizes["num_hidden_layers"], "n_heads": sizes["num_attention_heads"], "hidden_dim": sizes["intermediate_size"],
        "activation": sizes["hidden_act"], "pad_token_id": 0, "dropout": 0.0, "attention_dropout": 0.0,
    }  # fmt: skip
    return config, _named(found.parts, names, "embeddings.") | _layers(found, layer, "transformer.layer.{i}.")


def _with_projection(found: Transformer, name: str) -> tuple[dict[str, Any], State]:
    """Factorized embeddings: narrower than the model, with a projection."""
    _need("projection" in found.parts, "its embeddings are narrower than the model")
    sizes = _bert_sizes(found)
    parts = _with_types(found)
    projection = {"projection": parts.pop("projection")}
    state = _named(parts, _BERT_EMBEDDINGS, "embeddings.") | _named(projection, {"projection": name})
    return {**sizes, "embedding_size": found.parts["words"]["weight"].shape[1]}, state


def _electra(found: Transformer) -> Written:
    config, state = _with_projection(found, "embeddings_project")
    return config, state | _layers(found, _BERT_LAYER, "encoder.layer.{i}.")


def _albert(found: Transformer) -> Written:
    _need(found.shared, "its layers are run again")
    config, state = _with_projection(found, "encoder.embedding_hidden_mapping_in")
    names = {
        "query": "attention.query", "key": "attention.key", "value": "attention.value", "out": "attention.dense",
        "attention_norm": "attention.LayerNorm", "first": "ffn", "second": "ffn_output", "feed_forward_norm": "full_layer_layer_norm",
    }  # fmt: skip
    run = [tuple(layer.layers.values()) for layer in found.layers]
    groups = _groups(run)
    for i, group in enumerate(groups):
        for j, layer in enumerate(group):
            prefix = f"encoder.albert_layer_groups.{i}.albert_layers.{j}."
            state |= _named(found.weights[run.index(layer)], names, prefix)
    config["num_hidden_layers"] = len(run) // len(groups[0])  # a layer of its config is a run of a whole group
    sizes = {"num_hidden_groups": len(groups), "inner_group_num": len(groups[0]), "classifier_dropout_prob": 0.0}
    return {**config, **sizes}, state


def _groups(run: Sequence[_Shared]) -> list[tuple[_Shared, ...]]:
    """ALBERT's groups of layers, each run whole and equally often, one group after the other."""
    own = list(dict.fromkeys(run))
    for size in (size for size in range(1, len(own) + 1) if len(own) % size == 0):
        groups = [tuple(own[start : start + size]) for start in range(0, len(own), size)]
        if [layer for group in groups for _ in range(len(run) // len(own)) for layer in group] == [*run]:
            return groups
    raise DiffersError("each group of its layers is run equally often, one after the other")


# -- norms before what is added: T5, ViT, CLIP ----------------------------------------------------------------------------

_T5_DISTANCE = 128


def _t5(found: Transformer) -> Written:
    _need(found.images is None and "positions" not in found.parts, "it adds nothing to its words")
    attention = found.layers[0].attention
    _need(found.rms and found.layers[0].norm_first, "its norms stand before what is added, and divide by a length")
    _need(attention.scale == 1.0, f"its attention does not scale, and this one scales by {attention.scale:.4g}")
    _need("relative" in found.parts, "it adds a number to each score by the distance of its places")
    gated = "gate" in found.weights[0]
    active = found.layers[0].activation
    projection = {"gelu_pytorch_tanh": "gelu"}.get(active, active) if gated else active
    layer = {
        "query": "0.SelfAttention.q", "key": "0.SelfAttention.k", "value": "0.SelfAttention.v", "out": "0.SelfAttention.o",
        "attention_norm": "0.layer_norm", "first": "1.DenseReluDense.wi_0" if gated else "1.DenseReluDense.wi",
        "gate": "1.DenseReluDense.wi_1", "second": "1.DenseReluDense.wo", "feed_forward_norm": "1.layer_norm",
    }  # fmt: skip
    names = {
        "words": "shared", "final_norm": "encoder.final_layer_norm",
        "relative": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    }  # fmt: skip
    words, relative = found.parts["words"]["weight"], found.parts["relative"]["weight"]
    state = _named(found.parts, names) | _layers(found, layer, "encoder.block.{i}.layer.")
    state["encoder.embed_tokens.weight"] = words
    config = {
        "vocab_size": len(words), "d_model": found.width, "d_kv": attention.dim, "d_ff": len(found.weights[0]["first"]["weight"]),
        "num_layers": len(found.layers), "num_heads": attention.heads, "relative_attention_num_buckets": len(relative),
        "relative_attention_max_distance": _T5_DISTANCE, "layer_norm_epsilon": found.eps,
        "feed_forward_proj": f"gated-{projection}" if gated else projection, "dropout_rate": 0.0, "pad_token_id": 0,
    }  # fmt: skip
    return config, state


def _image_sizes(found: Transformer) -> dict[str, Any]:
    _usual(found, norm_first=True)
    if found.images is None:
        raise DiffersError("it reads images")
    height, width = found.images.sizes
    _need(height == width, "its images are square")
    return {
        **_sizes(found), "image_size": height, "patch_size": found.images.patch, "num_channels": found.images.channels,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip


def _vit(found: Transformer) -> Written:
    config = _image_sizes(found)
    _need(found.pooling.kind in ("cls", ""), "it is pooled at its first token")
    layer = {
        "query": "attention.q_proj", "key": "attention.k_proj", "value": "attention.v_proj", "out": "attention.o_proj",
        "attention_norm": "layernorm_before", "first": "mlp.fc1", "second": "mlp.fc2", "feed_forward_norm": "layernorm_after",
    }  # fmt: skip
    parts = dict(found.parts)
    state = {
        "embeddings.cls_token": parts.pop("class")["weight"].reshape(1, 1, -1),
        "embeddings.position_embeddings": parts.pop("positions")["weight"].unsqueeze(0),
    }
    names = {"patches": "embeddings.patch_embeddings.projection", "final_norm": "layernorm"}
    return config, state | _named(parts, names) | _layers(found, layer, "layers.{i}.")


_CLIP_LAYER = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "out": "self_attn.out_proj",
    "attention_norm": "layer_norm1", "first": "mlp.fc1", "second": "mlp.fc2", "feed_forward_norm": "layer_norm2",
}  # fmt: skip


def _clip_projection(found: Transformer, name: str) -> State:
    """The linear layer after the pooling, which is part of the class."""
    dense = found.pooling.dense
    if dense is None or "bias" in dense or found.pooling.tanh:
        raise DiffersError("a product without a bias follows its pooling")
    return {f"{name}.weight": dense["weight"]}


def _clip_vision(found: Transformer) -> Written:
    config = _image_sizes(found)
    _need("norm" in found.parts, "it normalizes its patches")
    _need(found.pooling.kind == "cls", "it is pooled at its first token")
    projection = _clip_projection(found, "visual_projection")
    parts = dict(found.parts)
    state = {"vision_model.embeddings.class_embedding": parts.pop("class")["weight"].reshape(-1)}
    names = {
        "patches": "embeddings.patch_embedding", "positions": "embeddings.position_embedding", "norm": "pre_layrnorm",
        "final_norm": "post_layernorm",
    }  # fmt: skip
    state |= projection | _named(parts, names, "vision_model.")
    config["projection_dim"] = len(projection["visual_projection.weight"])
    return config, state | _layers(found, _CLIP_LAYER, "vision_model.encoder.layers.{i}.")


def _clip_text(found: Transformer) -> Written:
    words, positions = _of_text(found)
    _usual(found, norm_first=True)
    _need(found.pooling.kind == "place", "it is pooled at the place of its largest id")
    projection = _clip_projection(found, "text_projection")
    names = {
        "words": "embeddings.token_embedding", "positions": "embeddings.position_embedding", "final_norm": "final_layer_norm",
    }  # fmt: skip
    config = {
        **_sizes(found), "vocab_size": len(words), "max_position_embeddings": len(positions),
        "projection_dim": len(projection["text_projection.weight"]), "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1,
        "attention_dropout": 0.0,
    }  # fmt: skip
    state = projection | _named(found.parts, names, "text_model.")
    return config, state | _layers(found, _CLIP_LAYER, "text_model.encoder.layers.{i}.")


ARCHITECTURES = (
    Architecture("ALBERT", "AlbertModel", "AlbertConfig", _albert),
    Architecture("ELECTRA", "ElectraModel", "ElectraConfig", _electra),
    Architecture("DistilBERT", "DistilBertModel", "DistilBertConfig", _distilbert),
    Architecture("RoBERTa", "RobertaModel", "RobertaConfig", _roberta),
    Architecture("BERT", "BertModel", "BertConfig", _bert),
    Architecture("T5", "T5EncoderModel", "T5Config", _t5),
    Architecture("CLIP's text model", "CLIPTextModelWithProjection", "CLIPTextConfig", _clip_text, "text_embeds"),
    Architecture(
        "CLIP's vision model", "CLIPVisionModelWithProjection", "CLIPVisionConfig", _clip_vision, "image_embeds"
    ),
    Architecture("ViT", "ViTModel", "ViTConfig", _vit),
)
"""The most specific first: any post-norm stack matches BERT."""
