"""The towers of packages as PyTorch modules, written by `torch-towers source`. This file is yours.

The weights come from the checkpoint; torch_towers' preprocessing turns rows into tensors:

    towers = load("packages")
    tensors = torch_towers.load("packages").query.preprocess({"text": [...]})
    embeddings = towers.query(**tensors)
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def relu(x: Tensor) -> Tensor:
    """ReLU, but NaN (the average of nothing) becomes 0, as in TensorFlow with oneDNN."""
    return torch.where(x > 0, x, 0.0)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over a mask's positions, NaN if it has none: [batch, length, dim], [batch, length] -> [batch, dim]."""
    return (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


class Normalization(nn.Module):
    """`(x - mean) / std` with precomputed statistics: `[..., features] -> [..., features]`.

    `shape` is that of the statistics, which are buffers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class QueryTower(nn.Module):
    """The query tower, after its preprocessing.

    words: int64 [batch, 40]
    -> output_0: [batch, 64]
    """

    def __init__(self) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(4000, 32)
        self.dense = nn.Linear(32, 128)
        self.dense_1 = nn.Linear(160, 64)

    def forward(self, words: Tensor) -> Tensor:
        mean_of_words = masked_mean(self.word_embedding(words), words != 0)  # [batch, 32]
        features = torch.cat([mean_of_words, relu(self.dense(mean_of_words))], dim=-1)  # [batch, 160]
        return F.normalize(self.dense_1(features), dim=-1)


class CandidateTower(nn.Module):
    """The candidate tower, after its preprocessing.

    size: float32 [batch]
    size_bin: int32 [batch]
    name_bucket: int64 [batch]
    section_id: int64 [batch]
    words_3: int64 [batch, 40]
    words_1: int64 [batch, 40]
    -> output_0: [batch, 64]
    """

    def __init__(self) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(4000, 32)
        self.section_embedding = nn.Embedding(47, 8)
        self.name_embedding = nn.Embedding(2048, 8)
        self.size_embedding = nn.Embedding(12, 4)
        self.log_size = Normalization((1,))
        self.dense_2 = nn.Linear(117, 192)
        self.dense_3 = nn.Linear(309, 64)

    def forward(
        self, size: Tensor, size_bin: Tensor, name_bucket: Tensor, section_id: Tensor, words_3: Tensor, words_1: Tensor
    ) -> Tensor:
        part = words_1[:, :10]  # [batch, 10]
        features = torch.cat(
            [
                masked_mean(self.word_embedding(words_1), words_1 != 0),
                masked_mean(self.word_embedding(part), part != 0),
                masked_mean(self.word_embedding(words_3), words_3 != 0),
                self.section_embedding(section_id),
                self.name_embedding(name_bucket),
                self.size_embedding(size_bin),
                self.log_size(torch.log1p(size)).unsqueeze(-1),
            ],
            dim=-1,
        )
        features = torch.cat([features, relu(self.dense_2(features))], dim=-1)  # [batch, 309]
        return F.normalize(self.dense_3(features), dim=-1)


class TwoTower(nn.Module):
    """Both towers, and the similarity of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.query = QueryTower()
        self.candidate = CandidateTower()

    def similarity(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """The cosine of every query with every candidate: [n, dim], [m, dim] -> [n, m]."""
        return F.normalize(queries, dim=-1) @ F.normalize(candidates, dim=-1).T


def load(checkpoint: str | Path) -> TwoTower:
    """The towers with the weights of a checkpoint folder."""
    towers = TwoTower()
    weights = load_file(Path(checkpoint) / "model.safetensors")
    towers.load_state_dict({name: weights[name] for name in towers.state_dict()})
    return towers.eval()


def save(towers: TwoTower, path: str | Path) -> None:
    """Writes the weights for `torch-towers import CHECKPOINT path`."""
    save_file({name: weight.contiguous() for name, weight in towers.state_dict().items()}, path)
