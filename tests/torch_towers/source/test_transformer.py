"""A stack of attention layers is read from a graph by its structure; what is another model is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.torch_towers.ports import checkpoint
from tests.torch_towers.source.bert import PLACES, VOCAB, bert
from torch_towers import load
from torch_towers.errors import TorchTowersError
from torch_towers.graph.graph import ModuleSpec
from torch_towers.source.architectures import candidates
from torch_towers.source.transformer import found_transformer
from torch_towers.tower import Tower


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_its_sizes_and_weights_are_found(pooling: str) -> None:
    found = found_transformer(bert(3, 8, 2, form="tanh", pooling=pooling))
    assert len(found.layers) == len(found.weights) == 3 and found.width == 8 and not found.shared
    assert found.layers[0].attention.heads == 2 and found.layers[0].activation == "gelu_pytorch_tanh"
    assert (found.pooling.kind, found.pooling.normalized) == ("mean" if pooling == "mean" else "cls", True)
    assert (found.ids, found.types, found.eps, found.rms) == ("ids", None, 1e-12, False)
    assert found.pooling.tanh == (found.pooling.dense is not None) == (pooling == "pooler")
    assert found.parts["words"]["weight"].shape == (VOCAB, 8)
    assert found.parts["positions"]["weight"].shape == (PLACES, 8)
    assert ("types" in found.parts) == (pooling == "pooler")


def test_the_more_particular_class_comes_first() -> None:
    def names(tower: Tower) -> list[str]:
        return [architecture.name for architecture, _ in candidates(found_transformer(tower))[0]]

    assert names(bert(pooling="pooler")) == ["BERT"]
    assert names(bert()) == ["DistilBERT", "BERT"]
    assert names(bert(eps=1e-5)) == ["RoBERTa", "BERT"]
    assert names(bert(narrow=4)) == ["ELECTRA"]
    assert names(bert(narrow=4, run=(0, 0))) == ["ALBERT", "ELECTRA"]


def altered(tower: Tower, name: str, **args: object) -> Tower:
    modules = dict(tower.spec.encoder.modules)
    modules[name] = ModuleSpec(modules[name].type, {**modules[name].args, **args})
    encoder = replace(tower.spec.encoder, modules=modules)
    return Tower(replace(tower.spec, encoder=encoder), dict(tower.encoder.tensors()))


@pytest.mark.parametrize("layer", ["layer_0.attention", "layer_1.attention"])
def test_another_scale_is_another_model(layer: str) -> None:
    with pytest.raises(TorchTowersError, match=r"attention scales by 0\.5, and this one by 1|layers differ"):
        fitting, said = candidates(found_transformer(altered(bert(), layer, scale=1.0)))
        assert not fitting
        raise TorchTowersError("; ".join(said))


def test_norms_of_two_kinds_are_another_model() -> None:
    with pytest.raises(TorchTowersError, match="norms are of different kinds, or add different numbers"):
        found_transformer(altered(bert(), "layer_1.output_norm", eps=1e-3))


def test_a_tower_that_is_no_stack_of_attention_is_refused() -> None:
    with pytest.raises(TorchTowersError, match="none of transformers' models"):
        found_transformer(load(checkpoint()).query)
