"""Exports an encoder that matches a model of transformers to a folder for `AutoModel.from_pretrained`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file  # type: ignore[reportUnknownVariableType]
from torch import Tensor, nn
from torch.nn import functional

from torch_towers.errors import TorchTowersError
from torch_towers.extras import need
from torch_towers.parity.recorded import Recorded
from torch_towers.source.architectures import Architecture, Written, candidates
from torch_towers.source.check import Batch, Compared, answered, compare, require, require_new
from torch_towers.source.image_processor import write_image_processor
from torch_towers.source.inputs import made_inputs
from torch_towers.source.tokenizer import allowed, write_tokenizer
from torch_towers.source.transformer import Pooling, Transformer, Weights, found_transformer
from torch_towers.tower import Tower

_MODULES = "sentence_transformers.models."


@dataclass(frozen=True, slots=True)
class Folder:
    """The result of an export: the class of transformers and the comparison. One sentence each: why sentence-transformers
    cannot read it (`missing`), why it has no tokenizer (`tokenizer`), and what its image processor does or why it has none
    (`images`, empty for texts)."""

    model: str
    compared: list[Compared]
    missing: str = ""
    tokenizer: str = ""
    images: str = ""


def to_transformers(
    tower: Tower, folder: str | Path, inputs: Any = None, batches: Sequence[Batch] = (), name: str = "tower"
) -> Folder:
    """Exports the encoder as a class of transformers: config.json, model.safetensors and the files of sentence-transformers.

    First it compares the pooled and normalized output of transformers' model with the encoder's embedding: on `batches`
    (recorded inputs and outputs of the encoder), on `inputs` as `encode` takes them, and on generated inputs. It skips rows
    of padding only, where TensorFlow and transformers differ. Errors: `TorchTowersError` if no class matches, the numbers
    differ or `folder` exists; nothing is written then.
    """
    folder = Path(folder)
    require_new(folder)
    found = found_transformer(tower)
    fitting, said = candidates(found)
    if not fitting:
        raise TorchTowersError(f"the encoder is none of transformers' models: {'; '.join(said)}")
    rows = [*([inputs] if inputs is not None else []), *made_inputs(tower, found)]
    batches = [*batches, *answered(tower, [Recorded(one, {}) for one in rows])]
    if not batches:
        raise TorchTowersError("no inputs could be made to compare the encoder on: give some as `inputs`")
    architecture, model, compared = _equal(tower, found, fitting, batches, name)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        beside = Path(scratch) / folder.name
        model.save_pretrained(beside)
        missing = _sentence_transformers(beside, architecture, found)
        tokenizer = write_tokenizer(tower, found, beside)
        kind = "CLIP" if architecture.model.startswith("CLIP") else "ViT"
        images = write_image_processor(tower, found, beside, kind)
        os.replace(beside, folder)
    return Folder(architecture.model, compared, missing, tokenizer, images)


def _equal(
    tower: Tower,
    found: Transformer,
    fitting: Sequence[tuple[Architecture, Written]],
    batches: Sequence[Batch],
    name: str,
) -> tuple[Architecture, Any, list[Compared]]:
    """The first class whose model equals the encoder. Errors: `TorchTowersError` of the last candidate."""
    error: TorchTowersError | None = None
    for architecture, written in fitting:
        try:
            model = _model(architecture, written, found.pooling)
            compared = _compared(name, tower, model, architecture, found, batches)
            require(compared, f"transformers' {architecture.model}")
            return architecture, model, compared
        except TorchTowersError as one:
            error = one
    assert error is not None
    raise error


def _model(architecture: Architecture, written: Written, pooling: Pooling) -> Any:
    """The model of transformers with these weights. A bias the encoder lacks is 0; the pooler is the tower's, or none."""
    transformers: Any = need("transformers", "transformers")
    config, state = written
    model: nn.Module = getattr(transformers, architecture.model)(getattr(transformers, architecture.config)(**config))
    empty = model.state_dict()
    if pooler := [name for name in empty if name.startswith("pooler.")]:
        if pooling.kind == "cls" and pooling.tanh and pooling.dense is not None and len(pooling.dense) == len(pooler):
            state = {**state, **{name: pooling.dense[name.rpartition(".")[2]] for name in pooler}}
        else:
            model = type(model)(model.config, add_pooling_layer=False)
            empty = model.state_dict()
    biases = {n: torch.zeros_like(v) for n, v in empty.items() if n.endswith(".bias") and n not in state}
    given = {**biases, **state}
    wrong = [n for n, v in empty.items() if n not in given or given[n].shape != v.shape]
    wrong += [n for n in given if n not in empty]
    if wrong:
        raise TorchTowersError(f"the encoder is no {architecture.model} as transformers has it: {', '.join(wrong[:3])}")
    model.load_state_dict(given)
    return model.eval()


# -- the comparison -------------------------------------------------------------------------------------------------------


def _compared(
    name: str, tower: Tower, model: Any, architecture: Architecture, found: Transformer, batches: Sequence[Batch]
) -> list[Compared]:
    (output,) = tower.encoder.graph.outputs
    masks: dict[int, Tensor] = {}
    left: list[Batch] = []
    for given, theirs, domain in batches:
        mask = _attention_mask(tower, found, given)
        some = mask.any(-1)
        masks[id(given)] = mask
        if some.any():
            left.append((given, {output: theirs[output][some]}, domain))

    def run(given: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            mask = masks[id(given)]
            return {output: _embedding(model, architecture, found, given, mask)[mask.any(-1)]}

    return compare(name, run, left)


def _attention_mask(tower: Tower, found: Transformer, given: Mapping[str, Any]) -> Tensor:
    """Positions that at least one query may attend to: `[batch, length]` bool. Images have one position."""
    ids: Tensor = given[found.ids]
    shape = ids.shape if found.images is None else (*ids.shape[:1], 1)
    if found.mask is None:
        return torch.ones(shape, dtype=torch.bool)
    with torch.no_grad():
        value: Tensor = tower.encoder.values(**given)[found.mask]
    return allowed(value, shape)


def _embedding(
    model: Any, architecture: Architecture, found: Transformer, given: Mapping[str, Any], mask: Tensor
) -> Tensor:
    """The embedding of transformers' model, pooled and normalized like in sentence-transformers: `[batch, dim]`."""
    if found.images is not None:
        result = model(pixel_values=given[found.ids].movedim(-1, 1))
    else:
        types = {} if found.types is None else {"token_type_ids": given[found.types].long()}
        result = model(input_ids=given[found.ids].long(), attention_mask=mask.long(), **types)
    value: Tensor = result[architecture.gives]
    if architecture.gives == "last_hidden_state":
        value = _pooled(value, mask, found.pooling)
    return functional.normalize(value, dim=-1) if found.pooling.normalized else value


def _pooled(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """`[batch, length, dim] -> [batch, dim]`, by sentence-transformers' formulas."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling.kind == "cls":
        pooled = hidden[:, 0]
    elif pooling.kind == "mean":
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    elif pooling.kind == "max":
        pooled = hidden.masked_fill(weights == 0, -1e9).amax(1)
    else:
        pooled = hidden
    if pooling.dense is not None:
        pooled = functional.linear(pooled, pooling.dense["weight"], pooling.dense.get("bias"))
        pooled = torch.tanh(pooled) if pooling.tanh else pooled
    return pooled


# -- sentence-transformers ------------------------------------------------------------------------------------------------


def _sentence_transformers(folder: Path, architecture: Architecture, found: Transformer) -> str:
    """Writes the pooling configuration of sentence-transformers; returns one sentence if the pooling has no equivalent."""
    pooling = found.pooling
    if found.images is not None or pooling.kind not in ("mean", "cls", "max"):
        return "SentenceTransformer does not read it: its embedding is not pooled from the hidden states of a text"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [("2_Dense", "Dense")] if pooling.dense is not None else []
    modules += [(f"{len(modules)}_Normalize", "Normalize")] if pooling.normalized else []
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_MODULES}{kind}"} for i, (path, kind) in enumerate(modules)
    ]
    modes = {f"pooling_mode_{mode}": pooling.kind == kind for mode, kind in
             (("cls_token", "cls"), ("mean_tokens", "mean"), ("max_tokens", "max"))}  # fmt: skip
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    if pooling.dense is not None:
        _dense(folder / "2_Dense", pooling.dense, pooling.tanh)
    limits: dict[str, Any] = {"do_lower_case": False}
    if "positions" in found.parts:
        limits["max_seq_length"] = len(found.parts["positions"]["weight"])
    for file, content in (
        ("modules.json", listed),
        ("1_Pooling/config.json", {"word_embedding_dimension": found.width, **modes}),
        ("sentence_bert_config.json", limits),
    ):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return ""


def _dense(folder: Path, dense: Weights, tanh: bool) -> None:
    """The linear layer after the pooling, as sentence-transformers' Dense."""
    save_file({f"linear.{part}": value.contiguous() for part, value in dense.items()}, folder / "model.safetensors")
    activation = "torch.nn.modules.activation.Tanh" if tanh else "torch.nn.modules.linear.Identity"
    sizes = {"in_features": dense["weight"].shape[1], "out_features": dense["weight"].shape[0]}
    config = {**sizes, "bias": "bias" in dense, "activation_function": activation}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
