"""Towers of KerasHub's backbones are equal to TensorFlow, and become the classes of transformers that they are, tokenizers too."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import port_tower
from tests.corpus.sources import assert_source
from tests.torch_towers.source.sentence_folder import embedding
from torch_towers.tower import Tower

for package in ("keras", "keras_hub", "tensorflow_text", "transformers", "sentencepiece"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(
            f"{package} writes these towers, or reads them: install requirements-parity.txt", allow_module_level=True
        )

from tests.corpus.producers import keras_towers  # noqa: E402
from tests.corpus.producers.hub_towers import TOWERS, albert  # noqa: E402

TEXTS = ["the quick brown foxes jumped, Zürich!", "", "[SEP] </s> 日本 " + "cat " * 40]


@pytest.mark.parametrize("kind", TOWERS)
def test_equal_to_tensorflow_and_to_transformers(
    kind: str, saved: Callable[..., Path], oracle: Oracle, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    write, tokenized = TOWERS[kind]
    port = port_tower(read(saved(write)))
    report = verify_with_tensorflow(port, oracle)
    assert report.passed, "\n".join(report.lines())
    tower = port.tower()
    written = tower.to_transformers(tmp_path / "made")
    assert written.model == kind and all(item.passed for item in written.compared)
    assert tokenized == (not written.tokenizer), written.tokenizer
    _assert_read(tower, tmp_path / "made")
    if tokenized:
        given = tower.preprocess({"text": np.array([text.encode() for text in TEXTS], object)})
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
        ids = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        theirs = [value for value in given.values() if isinstance(value, torch.Tensor) and value.shape == ids.shape]
        assert any(torch.equal(value.long(), ids) for value in theirs)


@pytest.mark.parametrize("layers, groups, inner", [(12, 1, 1), (4, 2, 1), (3, 1, 2), (4, 2, 2)])
def test_albert_with_layers_that_run_again(
    layers: int, groups: int, inner: int, oracle: Oracle, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    albert(layers, groups, inner)(tmp_path / "model")
    port = port_tower(read(tmp_path / "model"))
    report = verify_with_tensorflow(port, oracle)
    assert report.passed, "\n".join(report.lines())
    tower = port.tower()
    written = tower.to_transformers(tmp_path / "albert")
    assert written.model == "AlbertModel" and all(item.passed for item in written.compared)
    assert not written.tokenizer
    config = AutoConfig.from_pretrained(tmp_path / "albert")
    assert (config.num_hidden_layers, config.num_hidden_groups, config.inner_group_num) == (layers, groups, inner)
    _assert_read(tower, tmp_path / "albert")


def test_twelve_layers_of_plain_keras(saved: Callable[..., Path], oracle: Oracle, tmp_path: Path) -> None:
    """Under no names that anybody knows: a class of transformers all the same, and a file of fewer than 150 lines."""
    port = port_tower(read(saved(keras_towers.encoder)))
    report = verify_with_tensorflow(port, oracle)
    assert report.passed, "\n".join(report.lines())
    file = assert_source(port, tmp_path, "plain")
    assert len(file.read_text().splitlines()) < 150
    assert "nn.ModuleList(TransformerLayer() for _ in range(12))" in file.read_text()
    assert port.tower().to_transformers(tmp_path / "made").model == "DistilBertModel"


def _assert_read(tower: Tower, folder: Path) -> None:
    """The folder gives the tower's embeddings: of texts as sentence-transformers reads it, of images by its processor."""
    from transformers import AutoImageProcessor, AutoModel

    random = np.random.default_rng(0)
    if (folder / "preprocessor_config.json").is_file():
        (spec,) = tower.inputs
        images = random.random((3, *spec.shape[1:]), np.float32)
        processor = AutoImageProcessor.from_pretrained(folder)
        pixels = processor(images=list(images), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        np.testing.assert_array_equal(pixels.movedim(1, -1).numpy(), images)
        assert type(AutoModel.from_pretrained(folder)).__name__.startswith(("ViT", "CLIP"))
        return
    if not (folder / "modules.json").is_file() or not (folder / "tokenizer.json").is_file():
        return
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, return_tensors="pt")
    given = {name: value for name, value in inputs.items() if name != "token_type_ids" or "bert" in str(folder)}
    found = embedding(folder, given)
    expected = tower.encode([text.encode() for text in TEXTS])
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=0, atol=1e-5)  # unit vectors, through two layers
