"""The embedding that a folder of sentence-transformers gives: by the library where it is installed, else by its formulas."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional


def embedding(folder: Path, inputs: dict[str, Tensor]) -> Tensor:
    """`input_ids`, `attention_mask` and perhaps `token_type_ids` through the model and the modules of modules.json."""
    if importlib.util.find_spec("sentence_transformers"):
        library: Any = __import__("sentence_transformers")
        with torch.no_grad():
            return library.SentenceTransformer(str(folder), device="cpu")(dict(inputs))["sentence_embedding"]
    library = __import__("transformers")
    kind = json.loads((folder / "config.json").read_text())["architectures"][
        0
    ]  # of T5 the encoder, as the library does
    with torch.no_grad():
        hidden = getattr(library, kind).from_pretrained(folder).eval()(**inputs).last_hidden_state
    x = hidden
    for module in json.loads((folder / "modules.json").read_text()):
        kind, path = module["type"].rpartition(".")[2], folder / module["path"]
        if kind == "Pooling":
            x = _pooled(hidden, inputs["attention_mask"], json.loads((path / "config.json").read_text()))
        elif kind == "Dense":
            config, weights = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
            x = functional.linear(x, weights["linear.weight"], weights.get("linear.bias"))
            x = torch.tanh(x) if config["activation_function"].endswith("Tanh") else x
        elif kind == "Normalize":
            x = functional.normalize(x, dim=1)
        else:
            assert kind == "Transformer"
    return x


def _pooled(hidden: Tensor, mask: Tensor, config: dict[str, Any]) -> Tensor:
    kept = mask.unsqueeze(-1).to(hidden.dtype)
    if config["pooling_mode_cls_token"]:
        return hidden[:, 0]
    if config["pooling_mode_max_tokens"]:
        return hidden.masked_fill(kept == 0, -1e9).amax(1)
    assert config["pooling_mode_mean_tokens"]
    return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
