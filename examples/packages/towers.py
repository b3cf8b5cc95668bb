"""The towers of packages as PyTorch modules, written by `torch-towers source`. This file is yours.

Weights are those of the checkpoint; rows become tensors by torch_towers' preprocessing:

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


class Normalization(nn.Module):
    """`(x - mean) / std`, with statistics that were learnt beforehand: `[..., features] -> [..., features]`.

    `shape` is that of the statistics, which are buffers. Source: Keras Normalization.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return str(tuple(self.mean.shape))


class QueryTower(nn.Module):
    """The query tower, behind its preprocessing.

    words: int64 [batch, 40]
    -> output_0: [batch, 64]

    The relu of NaN, the average of nothing, is 0 as in TensorFlow with oneDNN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(4000, 32)
        self.dense = nn.Linear(32, 128)
        self.dense_1 = nn.Linear(160, 64)

    def forward(self, words: Tensor) -> Tensor:
        mask = words != 0  # [batch, 40]
        mean_of_words = (self.word_embedding(words) * mask.unsqueeze(-1)).sum(1)  # [batch, 32]
        mean_of_words = mean_of_words / mask.unsqueeze(2).float().sum(1)  # [batch, 32]
        dense_1 = F.relu(torch.nan_to_num(self.dense(mean_of_words), posinf=torch.inf))  # [batch, 128]
        dense_1 = self.dense_1(torch.cat([mean_of_words, dense_1], dim=-1))  # [batch, 64]
        return F.normalize(dense_1, dim=-1)


class CandidateTower(nn.Module):
    """The candidate tower, behind its preprocessing.

    size: float32 [batch]
    size_bin: int32 [batch]
    name_bucket: int64 [batch]
    section_id: int64 [batch]
    words_3: int64 [batch, 40]
    words_1: int64 [batch, 40]
    -> output_0: [batch, 64]

    The relu of NaN, the average of nothing, is 0 as in TensorFlow with oneDNN.
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
        mask = words_1 != 0  # [batch, 40]
        mean_of_words = (self.word_embedding(words_1) * mask.unsqueeze(-1)).sum(1)  # [batch, 32]
        strided_slice = words_1[:, 0:10]  # [batch, 10]
        mask_2 = strided_slice != 0  # [batch, 10]
        mean_of_words_2 = (self.word_embedding(strided_slice) * mask_2.unsqueeze(-1)).sum(1)  # [batch, 32]
        mask_3 = words_3 != 0  # [batch, 40]
        mean_of_words_3 = (self.word_embedding(words_3) * mask_3.unsqueeze(-1)).sum(1)  # [batch, 32]
        reshape = self.log_size(torch.log1p(size)).reshape(size.shape[0], 1)  # [batch, 1]
        concatenate_1 = torch.cat(
            [
                mean_of_words / mask.unsqueeze(2).float().sum(1),
                mean_of_words_2 / mask_2.unsqueeze(2).float().sum(1),
                mean_of_words_3 / mask_3.unsqueeze(2).float().sum(1),
                self.section_embedding(section_id),
                self.name_embedding(name_bucket),
                self.size_embedding(size_bin),
                reshape,
            ],
            dim=-1,
        )  # [batch, 117]
        dense_2 = F.relu(torch.nan_to_num(self.dense_2(concatenate_1), posinf=torch.inf))  # [batch, 192]
        dense_3 = self.dense_3(torch.cat([concatenate_1, dense_2], dim=-1))  # [batch, 64]
        return F.normalize(dense_3, dim=-1)


class TwoTower(nn.Module):
    """Both towers, and the similarity that they were trained for."""

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
