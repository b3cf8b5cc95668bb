"""A graph as a module: weights that train, copies, compilers, exports, layers that are swapped."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.torch_towers.test_tower import by_hand, near
from tests.torch_towers.towers import (
    ROWS,
    word_store,
    word_tower,
)
from torch_towers import CheckpointError, TwoTower


def test_the_encoder_trains() -> None:
    tower = word_tower()
    assert {name for name, value in tower.encoder.named_parameters()} == {
        "embedding.weight",
        "dense.weight",
        "dense.bias",
        "scale",
    }
    optimizer = torch.optim.SGD(tower.encoder.parameters(), lr=0.01)
    tensors = tower.preprocess(ROWS)
    losses = []
    for _ in range(5):
        loss = tower.encoder(**tensors)["embedding"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert near(tower.encode(ROWS), tower.encoder(**tensors)["embedding"])


def test_state_dict() -> None:
    first, second = word_tower(0), word_tower(1)
    assert list(first.encoder.state_dict()) == ["scale", "dense.weight", "dense.bias", "embedding.weight"]
    second.encoder.load_state_dict(first.encoder.state_dict(), strict=True)
    assert second.encode(ROWS).equal(first.encode(ROWS))


def test_frozen_weights() -> None:
    tower = word_tower(frozen=frozenset({"scale", "dense.bias"}))
    trained = {name for name, value in tower.encoder.named_parameters() if value.requires_grad}
    assert trained == {"embedding.weight", "dense.weight"} and near(tower.encode(ROWS), by_hand(ROWS))


def test_deepcopy_is_independent() -> None:
    tower = word_tower()
    for copied in (copy.deepcopy(tower.encoder), copy.deepcopy(tower).encoder):
        with torch.no_grad():
            copied.dense.weight.zero_()
        assert copied(**tower.preprocess(ROWS))["embedding"].equal(
            (word_store()["dense.bias"] * word_store()["scale"] + 0.25).expand(4, -1)
        )
    assert near(tower.encode(ROWS), by_hand(ROWS))


def test_compile_whole_and_with_a_free_batch() -> None:
    tower = word_tower()
    compiled = torch.compile(tower.encoder, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (1, 2, 4):
        rows = {name: column[:n] for name, column in ROWS.items()}
        assert compiled(**tower.preprocess(rows))["embedding"].allclose(by_hand(rows))


def test_export_with_a_free_batch() -> None:
    tower = word_tower()
    batch = torch.export.Dim("batch", min=1)
    tensors = tower.preprocess(ROWS)
    exported = torch.export.export(tower.encoder, (), tensors, dynamic_shapes={name: {0: batch} for name in tensors})
    for n in (1, 3, 9):
        rows = {"word": ["red"] * n, "size": [0.5] * n}
        assert exported.module()(**tower.preprocess(rows))["embedding"].allclose(by_hand(rows))


class Lora(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def test_swapping_a_layer(tmp_path: Path) -> None:
    tower = word_tower()
    base = tower.encoder.dense
    tower.encoder.dense = Lora(base)
    assert near(tower.encode(ROWS), by_hand(ROWS))
    tower.encoder(**tower.preprocess(ROWS))["embedding"].sum().backward()
    assert tower.encoder.dense.up.weight.grad is not None and base.weight.grad is None
    with pytest.raises(CheckpointError, match="'dense' was replaced by one with the weights base"):
        TwoTower(tower).save(tmp_path / "c")
    assert tower.to(dtype=torch.float64).encode(ROWS).dtype == torch.float64
    tower.to(dtype=torch.float32).encoder.dense = base
    TwoTower(tower).save(tmp_path / "c")
