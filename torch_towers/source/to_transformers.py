"""To transformers: a tower whose encoder is a BERT as a folder that `AutoModel.from_pretrained` reads."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file  # type: ignore[reportUnknownVariableType]
from torch import Tensor
from torch.nn import functional

from torch_towers.extras import need
from torch_towers.source.bert import Bert, Dense, found_bert
from torch_towers.source.check import Batch, Compared, compare, require, require_new
from torch_towers.tower import Tower

_MODULES = "sentence_transformers.models."


def to_transformers(tower: Tower, folder: Path, batches: Sequence[Batch], name: str = "tower") -> list[Compared]:
    """Writes the encoder as transformers' `BertModel`: config.json, model.safetensors, and the pooling of sentence-transformers beside.

    Each batch is compared: the embedding of transformers' own model, pooled and normalized, with the encoder's. No tokenizer is
    written: `tower.preprocess` gives the ids, and sentence-transformers wants one put beside.
    Errors: `TorchTowersError` where the encoder is another model, differs, or `folder` is there already: nothing is written then.
    """
    require_new(folder)
    bert = found_bert(tower)
    transformers: Any = need("transformers", "transformers")
    model = transformers.BertModel(transformers.BertConfig(**bert.config), add_pooling_layer=False).eval()
    model.load_state_dict(bert.weights)
    found = _compared(name, tower, model, bert, batches)
    require(found, "transformers' model")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        beside = Path(scratch) / folder.name
        model.save_pretrained(beside)
        _sentence_transformers(beside, bert)
        os.replace(beside, folder)
    return found


def _compared(name: str, tower: Tower, model: Any, bert: Bert, batches: Sequence[Batch]) -> list[Compared]:
    (output,) = tower.encoder.graph.outputs

    def run(given: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            ids: Tensor = given[bert.ids]
            mask = _attention_mask(None if bert.mask is None else tower.encoder.values(**given)[bert.mask], ids)
            hidden: Tensor = model(input_ids=ids.long(), attention_mask=mask.long()).last_hidden_state
            return {output: _embedding(hidden, mask, bert)}

    return compare(name, run, batches)


def _attention_mask(value: Tensor | None, ids: Tensor) -> Tensor:
    """Which places any may look at: `[batch, ..., length] -> [batch, length]` bool."""
    if value is None:
        return torch.ones(ids.shape, dtype=torch.bool)
    allowed = value if value.dtype == torch.bool else value > -1.0  # a float mask is added: 0, or far below
    while allowed.ndim > 2:
        allowed = allowed.any(-2)
    return allowed.expand(ids.shape)


def _embedding(hidden: Tensor, mask: Tensor, bert: Bert) -> Tensor:
    """What sentence-transformers makes of the last hidden state: `[batch, length, dim] -> [batch, dim]`."""
    if bert.pooling == "cls":
        pooled = hidden[:, 0]
    else:
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    if bert.dense is not None:
        pooled = functional.linear(pooled, bert.dense.weight, bert.dense.bias)
        pooled = torch.tanh(pooled) if bert.dense.tanh else pooled
    return functional.normalize(pooled, dim=-1) if bert.normalized else pooled


def _sentence_transformers(folder: Path, bert: Bert) -> None:
    """The files that tell sentence-transformers how a vector is made of the hidden state."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [("2_Dense", "Dense")] if bert.dense is not None else []
    modules += [(f"{len(modules)}_Normalize", "Normalize")] if bert.normalized else []
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_MODULES}{kind}"} for i, (path, kind) in enumerate(modules)
    ]
    pooling = {
        "word_embedding_dimension": bert.config["hidden_size"],
        "pooling_mode_cls_token": bert.pooling == "cls",
        "pooling_mode_mean_tokens": bert.pooling == "mean",
    }
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    if bert.dense is not None:
        _dense(folder / "2_Dense", bert.dense)
    limits = {"max_seq_length": bert.config["max_position_embeddings"], "do_lower_case": False}
    for file, content in (
        ("modules.json", listed),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", limits),
    ):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _dense(folder: Path, dense: Dense) -> None:
    """The product behind the pooling, as sentence-transformers' Dense."""
    weights = {"linear.weight": dense.weight, **({} if dense.bias is None else {"linear.bias": dense.bias})}
    save_file(weights, folder / "model.safetensors")
    activation = "torch.nn.modules.activation.Tanh" if dense.tanh else "torch.nn.modules.linear.Identity"
    sizes = {"in_features": dense.weight.shape[1], "out_features": dense.weight.shape[0]}
    config = {**sizes, "bias": dense.bias is not None, "activation_function": activation}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
