"""Towers as ordinary torch modules: pickled, sent to other processes, moved, quantized and adapted."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.torch_towers.ports import candidates, checkpoint, queries
from torch_towers import Tower, TwoTower, load
from torch_towers.program.program import Program

ROWS = queries(6)


def fresh() -> TwoTower:
    return load(checkpoint())


def query_tower(towers: TwoTower | None = None) -> Tower:
    tower = (towers or fresh()).query
    assert tower is not None
    return tower


def saved_and_loaded(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # the user's own pickle, not a checkpoint


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)), saved_and_loaded]


# -- copies and pickles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "torch.save"])
def test_copies_give_the_same_and_share_no_weights(copied: Callable[[Any], Any]) -> None:
    towers = fresh()
    expected, tensors = towers.encode_query(ROWS), query_tower(towers).preprocess(ROWS)
    others: list[TwoTower] = [copied(towers), TwoTower(copied(query_tower(towers)))]
    encoder = copied(query_tower(towers).encoder)
    assert type(encoder) is Program and not encoder.training
    assert all(other.encode_query(ROWS).equal(expected) for other in others)
    name = query_tower(towers).embedding
    assert encoder(**tensors)[name].equal(query_tower(towers).encoder(**tensors)[name])
    with torch.no_grad():
        for weight in (*encoder.parameters(), *(weight for other in others for weight in other.parameters())):
            weight.zero_()
    assert towers.encode_query(ROWS).equal(expected)
    assert not any(other.encode_query(ROWS).equal(expected) for other in others)


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "torch.save"])
def test_copies_of_what_a_user_made_of_it(copied: Callable[[Any], Any]) -> None:
    """Another precision, a swapped layer and a changed weight go along, and the copy is saved as the original would be."""
    towers = fresh()
    tower = query_tower(towers)
    towers.half()
    layer = tower.encoder.get_submodule("dense")
    assert isinstance(layer, nn.Linear)
    tower.encoder.dense = nn.Linear(layer.in_features, layer.out_features).half()
    expected = towers.encode_query(ROWS)
    other = copied(towers)
    assert other.query.dtype == torch.float16 and other.encode_query(ROWS).equal(expected)
    assert other.float().query.dtype == torch.float32 and towers.encode_query(ROWS).equal(expected)


def test_a_copy_shares_vocabularies() -> None:
    tower = query_tower()
    assert copy.deepcopy(tower)._preprocess._host is tower._preprocess._host


# -- other processes ----------------------------------------------------------------------------------------------------


def _embedded(tower: Tower) -> Tensor:
    return tower.encode(ROWS)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool(method: str) -> None:
    """Both processes are on one machine and run the same code: equal to the bit."""
    towers = fresh()
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_embedded, (towers.query,)).equal(towers.encode_query(ROWS))
        assert pool.apply(towers.encode_query, (ROWS,)).equal(towers.encode_query(ROWS))


def test_a_data_loader_whose_workers_prepare_rows() -> None:
    tower = query_tower()
    (text,) = ROWS.values()
    rows: Any = [{"text": item} for item in text]
    loader: Any = DataLoader(rows, 3, collate_fn=tower.preprocess, num_workers=1, multiprocessing_context="spawn")
    found = [tower.encoder(**tensors)[tower.embedding] for tensors in loader]
    parts = [tower.encoder(**tower.preprocess(rows[at : at + 3]))[tower.embedding] for at in (0, 3)]
    assert torch.cat(found).equal(torch.cat(parts))


# -- modules ------------------------------------------------------------------------------------------------------------


class Ranker(nn.Module):
    """Somebody's model around a tower."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(64, 1)

    def forward(self, rows: Any) -> Tensor:
        return self.head(self.tower(rows)[self.tower.embedding])


def test_a_tower_is_loaded_for_serving() -> None:
    towers = fresh()
    assert not any(module.training for module in towers.modules())
    assert all(module.training for module in towers.train().modules())


def test_registers_in_somebodys_model() -> None:
    tower = query_tower()
    model = Ranker(tower)
    names = {f"tower.encoder.{name}" for name, _ in tower.encoder.named_parameters()}
    assert dict(model.named_parameters()).keys() == names | {"head.weight", "head.bias"}
    assert model.state_dict().keys() == {f"tower.encoder.{key}" for key in tower.encoder.state_dict()} | {
        "head.weight", "head.bias",
    }  # fmt: skip
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()(ROWS).sum().backward()
    optimizer.step()
    moved = {name for name, weight in model.named_parameters() if not weight.equal(before[name])}
    assert "tower.encoder.dense.weight" in moved and "head.weight" in moved
    assert not model.eval().tower(ROWS)[tower.embedding].requires_grad
    with torch.no_grad():
        assert not model.train()(ROWS).requires_grad


@pytest.mark.parametrize("move", [
    lambda model: model.half(), lambda model: model.to(torch.float16), lambda model: model.to("cpu", torch.float16),
    lambda model: model.to(dtype=torch.float16), lambda model: model.to(torch.zeros(1, dtype=torch.float16)),
    lambda model: model.type(torch.float16),
])  # fmt: skip
def test_moves_with_somebodys_model(move: Callable[[nn.Module], nn.Module]) -> None:
    tower = query_tower()
    expected = tower.encode(ROWS)
    model = move(Ranker(tower))
    assert tower.dtype == torch.float16 and model(ROWS).dtype == torch.float16
    found = tower.encode(ROWS)
    # unit vectors: 2**-11 of each coordinate and of what it was computed from
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=5e-3)
    assert model.double() is model and tower.encode(ROWS).dtype == torch.float64


def test_a_dtype_that_no_tower_has_changes_nothing() -> None:
    towers = fresh()
    expected = towers.encode_query(ROWS)
    with pytest.raises(ValueError, match="float8_e4m3fn is not one of float16, bfloat16, float32, float64"):
        towers.to(torch.float8_e4m3fn)
    assert towers.encode_query(ROWS).equal(expected)


def test_state_of_both_towers() -> None:
    trained, other = fresh(), fresh()
    with torch.no_grad():
        for weight in trained.parameters():
            weight.mul_(1.25)
    other.load_state_dict(trained.state_dict())
    rows = candidates(4)
    assert other.encode_candidate(rows).equal(trained.encode_candidate(rows))
    assert {name.split(".")[0] for name in other.state_dict()} == {"query", "candidate"}
    assert {name.split(".")[0] for name in TwoTower(query_tower()).state_dict()} == {"query"}


# -- layers by their type -----------------------------------------------------------------------------------------------


def test_dense_layers_are_torchs_own() -> None:
    kinds = [type(module) for module in fresh().modules()]
    assert kinds.count(nn.Linear) >= 4


def test_dynamic_quantization() -> None:
    towers = fresh()
    expected = towers.encode_query(ROWS)
    small: Any = torch.ao.quantization.quantize_dynamic(towers, {nn.Linear}, dtype=torch.qint8)
    kinds = [type(module) for module in small.modules()]
    assert nn.Linear not in kinds and kinds.count(torch.ao.nn.quantized.dynamic.Linear) >= 4
    found = small.encode_query(ROWS)
    assert not found.equal(expected)
    # 8 bits: weights and activations are off by up to 2**-8 of their largest; unit vectors
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


class Adapted(nn.Module):
    """A dense layer with the product of two small matrices beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def test_adapters_find_their_layers_by_type() -> None:
    towers = fresh()
    expected = towers.encode_query(ROWS)
    found = [(parent, name) for parent in list(towers.modules()) for name, module in parent.named_children()
             if type(module) is nn.Linear]  # fmt: skip
    for parent, name in found:
        setattr(parent, name, Adapted(getattr(parent, name)))
    assert len(found) >= 4 and not towers.encode_query(ROWS).equal(expected)
    towers.double()
    assert towers.encode_query(ROWS).dtype == torch.float64
