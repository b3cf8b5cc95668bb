"""Towers in users' code: compiled, exported, copied, wrapped, adapted, fine-tuned, saved again, installed."""

from __future__ import annotations

import copy
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.torch_towers.ports import candidates, checkpoint, queries
from torch_towers import CheckpointError, InputError, Tower, TwoTower, load
from torch_towers.layers.norms import L2Normalize

ROOT = Path(__file__).parents[2]
SIDES = ("query", "candidate")
ROWS = {"query": queries, "candidate": candidates}


def fresh() -> TwoTower:
    return load(checkpoint())


def side(towers: TwoTower, name: str) -> Tower:
    tower = towers.query if name == "query" else towers.candidate
    assert tower is not None
    return tower


def embedded(tower: Tower, tensors: dict[str, Any], module: Any = None) -> Tensor:
    return (tower.encoder if module is None else module)(**tensors)[tower.embedding]


# -- compile and export -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIDES)
def test_compiles_whole(name: str) -> None:
    tower = side(fresh(), name)
    torch._dynamo.reset()
    compiled = torch.compile(tower.encoder, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (1, 5, 32):
        tensors = tower.preprocess(ROWS[name](count))
        torch.testing.assert_close(embedded(tower, tensors, compiled), embedded(tower, tensors), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
def test_compiles_with_inductor_and_trains() -> None:
    towers = fresh()
    tower = side(towers, "query")
    tensors = tower.preprocess(queries(8))
    expected = embedded(tower, tensors)
    torch._dynamo.reset()
    compiled = torch.compile(tower.encoder, fullgraph=True)
    found = embedded(tower, tensors, compiled)
    # inductor adds float32 in another order; the embedding has length 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = dict(tower.encoder.named_parameters())
    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad((found * factors).sum(), list(weights.values()))
    eager = torch.autograd.grad((expected * factors).sum(), list(weights.values()))
    for key, one, other in zip(weights, ours, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", SIDES)
def test_exports_with_a_free_batch(name: str, tmp_path: Path) -> None:
    tower = side(fresh(), name)
    tensors = tower.preprocess(ROWS[name](7))
    free = {key: {0: torch.export.Dim("batch", min=1)} for key in tensors}
    exported = torch.export.export(tower.encoder, (), tensors, dynamic_shapes=free)
    torch.export.save(exported, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 7, 100):
        tensors = tower.preprocess(ROWS[name](count, seed=count))
        torch.testing.assert_close(embedded(tower, tensors, program), embedded(tower, tensors), rtol=1e-5, atol=1e-6)


# -- copies and state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIDES)
def test_deepcopy_shares_nothing_that_trains(name: str) -> None:
    towers = fresh()
    rows = ROWS[name](6)
    before = side(towers, name).encode(rows)
    copied = side(copy.deepcopy(towers), name)
    module = copy.deepcopy(side(towers, name).encoder)
    assert copied.encode(rows).equal(before)
    tensors = copied.preprocess(rows)
    assert embedded(copied, tensors, module).equal(embedded(side(towers, name), tensors))
    with torch.no_grad():
        for weight in (*copied.encoder.parameters(), *module.parameters()):
            weight.zero_()
    assert not copied.encode(rows).equal(before) and side(towers, name).encode(rows).equal(before)


@pytest.mark.parametrize("name", SIDES)
def test_state_dict_goes_into_a_fresh_tower(name: str, tmp_path: Path) -> None:
    trained, other = side(fresh(), name), side(fresh(), name)
    with torch.no_grad():
        for weight in trained.encoder.parameters():
            weight.mul_(1.25)
    torch.save(trained.encoder.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert other.encoder.load_state_dict(state, strict=True) == nn.modules.module._IncompatibleKeys([], [])
    rows = ROWS[name](6)
    assert other.encode(rows).equal(trained.encode(rows)) and not other.encode(rows).equal(
        side(fresh(), name).encode(rows)
    )
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.encoder.load_state_dict({**state, "more": torch.ones(1)}, strict=True)


# -- parallel wrappers --------------------------------------------------------------------------------------------------


def test_data_parallel_without_devices() -> None:
    tower = side(fresh(), "query")
    wrapped = nn.DataParallel(tower.encoder, device_ids=[] if torch.cuda.is_available() else None)
    tensors = tower.preprocess(queries(5))
    found = embedded(tower, tensors, wrapped)
    assert found.equal(embedded(tower, tensors))
    found.sum().backward()
    assert all(weight.grad is not None for weight in tower.encoder.parameters())


@pytest.fixture
def one_process() -> Iterator[None]:
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_distributed_data_parallel(one_process: None) -> None:
    tower = side(fresh(), "candidate")
    tensors = tower.preprocess(candidates(5))
    wrapped = nn.parallel.DistributedDataParallel(tower.encoder)
    assert embedded(tower, tensors, wrapped).equal(embedded(tower, tensors))
    embedded(tower, tensors, wrapped).sum().backward()
    assert all(weight.grad is not None for weight in tower.encoder.parameters())


def test_fully_sharded(one_process: None, tmp_path: Path) -> None:
    """FSDP2 shards parameters in place; what it trains goes back into a fresh tower by `state_dict`."""
    from torch.distributed.device_mesh import init_device_mesh

    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("torch without fully_shard")
    towers = fresh()
    tower = side(towers, "query")
    tensors = tower.preprocess(queries(8))
    expected = embedded(tower, tensors).detach()
    mesh = init_device_mesh("cpu", (1,))
    for layer in (tower.encoder.dense, tower.encoder.dense_1):
        fsdp.fully_shard(layer, mesh=mesh)
    fsdp.fully_shard(tower.encoder, mesh=mesh)
    torch.testing.assert_close(embedded(tower, tensors).detach(), expected, rtol=1e-6, atol=1e-6)
    optimizer = torch.optim.SGD(tower.encoder.parameters(), lr=1.0)
    embedded(tower, tensors)[:, 0].sum().backward()
    optimizer.step()
    trained = embedded(tower, tensors).detach()
    assert not trained.equal(expected)
    with pytest.raises(CheckpointError, match="sharded"):
        towers.save(tmp_path / "c")
    state = {key: value.full_tensor() for key, value in tower.encoder.state_dict().items()}
    whole = side(fresh(), "query")
    whole.encoder.load_state_dict(state, strict=True)
    torch.testing.assert_close(embedded(whole, tensors).detach(), trained, rtol=1e-6, atol=1e-6)


# -- adapters -----------------------------------------------------------------------------------------------------------


class Lora(nn.Module):
    """A frozen dense layer and the product of two small matrices beside it."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        self.base.weight += self.up.weight @ self.down.weight
        return self.base


def test_lora(tmp_path: Path) -> None:
    torch.manual_seed(0)
    towers = fresh()
    tower = side(towers, "query")
    rows = queries(16)
    before = tower.encode(rows)
    tower.encoder.requires_grad_(False)
    original = tower.encoder.dense.weight.clone()
    tower.encoder.dense = Lora(tower.encoder.dense)
    torch.testing.assert_close(tower.encode(rows), before, rtol=0, atol=1e-6)  # unit vectors; called, not fused
    losses = trained(tower, rows, lr=0.05)
    assert losses[-1] < losses[0] and tower.encoder.dense.base.weight.equal(original)
    with pytest.raises(CheckpointError, match=r"the layer 'dense' was replaced .*merge what was added .*then save"):
        towers.save(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    after = tower.encode(rows)
    tower.encoder.dense = tower.encoder.dense.merged()
    torch.testing.assert_close(tower.encode(rows), after, rtol=1e-5, atol=1e-5)
    towers.save(tmp_path / "c")
    assert load(tmp_path / "c").encode_query(rows).equal(tower.encode(rows))


# -- fine-tuning --------------------------------------------------------------------------------------------------------


def trained(tower: Tower, rows: Any, lr: float = 0.01, steps: int = 20) -> list[float]:
    """The losses of steps towards random directions."""
    tensors = tower.preprocess(rows)
    wanted = nn.functional.normalize(
        torch.randn(embedded(tower, tensors).shape, generator=torch.Generator().manual_seed(1))
    )
    weights = [weight for weight in tower.encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=lr)
    losses: list[float] = []
    for _ in range(steps):
        loss = (embedded(tower, tensors) - wanted).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", SIDES)
def test_fine_tuning_and_saving(name: str, tmp_path: Path) -> None:
    towers = fresh()
    tower = side(towers, name)
    rows = ROWS[name](32)
    before = tower.encode(rows)  # inference mode first: nothing of it may stay where training needs it
    frozen = {"word_embedding.weight"} & dict(tower.encoder.named_parameters()).keys()
    frozen = frozen or {next(iter(dict(tower.encoder.named_parameters())))}
    for key, weight in tower.encoder.named_parameters():
        weight.requires_grad_(key not in frozen)
    start = {key: value.detach().clone() for key, value in tower.encoder.named_parameters()}
    losses = trained(tower, rows)
    assert losses[-1] < 0.9 * losses[0]
    moved = {key for key, value in tower.encoder.named_parameters() if not value.equal(start[key])}
    assert moved == start.keys() - frozen
    after = tower.encode(rows)
    assert not after.equal(before)
    towers.save(tmp_path / "c")
    reloaded = load(tmp_path / "c")
    assert side(reloaded, name).encode(rows).equal(after)
    other = SIDES[name == "query"]
    assert side(reloaded, other).encode(ROWS[other](3)).equal(side(fresh(), other).encode(ROWS[other](3)))
    assert side(fresh(), name).encode(rows).equal(before)  # the weights were mapped: training must not reach the file


def test_gradients_pass_through_the_encoder_and_not_through_encode() -> None:
    tower = side(fresh(), "query")
    rows = queries(3)
    found = tower.encode(rows)
    assert not found.requires_grad and not found.is_inference()
    assert embedded(tower, tower.preprocess(rows)).requires_grad
    with torch.inference_mode():
        inside = tower.encode(rows)
        prepared = tower.preprocess(rows)
    assert inside.equal(found) and embedded(tower, {k: v.clone() for k, v in prepared.items()}).requires_grad


# -- the same numbers each time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIDES)
def test_deterministic(name: str) -> None:
    rows = ROWS[name](300)
    tower = side(fresh(), name)
    first = tower.encode(rows)
    assert tower.encode(rows).equal(first) and side(fresh(), name).encode(rows).equal(first)


@pytest.mark.parametrize("name", SIDES)
def test_batch_size(name: str) -> None:
    """Ids do not depend on the batch; floats by rounding only: sums of products are split otherwise for other sizes."""
    rows = ROWS[name](300)
    tower = side(fresh(), name)
    whole, tensors = tower.encode(rows), tower.preprocess(rows)
    for size in (1, 7, 64):
        parts = [
            tower.preprocess({key: column[i : i + size] for key, column in rows.items()}) for i in range(0, 300, size)
        ]
        for key, value in tensors.items():
            joined = torch.cat([part[key] for part in parts])
            if value.is_floating_point():
                torch.testing.assert_close(joined, value, rtol=1e-6, atol=0)
            else:
                assert joined.equal(value), key
        torch.testing.assert_close(tower.encode(rows, batch_size=size), whole, rtol=1e-5, atol=1e-6)


# -- precision and inputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-6), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_to(dtype: torch.dtype, bound: float) -> None:
    """Unit vectors: `bound` is the largest difference of a coordinate from float32."""
    towers = fresh()
    expected = {name: side(towers, name).encode(ROWS[name](50)) for name in SIDES}
    assert towers.to("cpu", dtype) is towers
    for name in SIDES:
        found = side(towers, name).encode(ROWS[name](50))
        assert found.dtype == dtype and side(towers, name).dtype == dtype
        assert 0 < (found.double() - expected[name].double()).abs().max() < bound
    scores, indices = towers.top_k(towers.encode_query(queries(4)), towers.encode_candidate(candidates(9)), 3)
    assert scores.shape == indices.shape == (4, 3)
    if dtype == torch.float64:  # wide enough to hold what it was
        towers.to(dtype=torch.float32)
        assert all(side(towers, name).encode(ROWS[name](50)).equal(expected[name]) for name in SIDES)


def test_numbers_that_float16_cannot_hold() -> None:
    """They would be infinite, and the embedding NaN, without a word."""
    towers = fresh().to(dtype=torch.float16)
    rows = candidates(5)
    rows["size"][3] = 1_000_000
    with pytest.raises(InputError, match=r"feature 'size', row 3: .* 1000000.* does not fit float16 .* bfloat16"):
        towers.encode_candidate(rows)
    assert towers.to(dtype=torch.bfloat16).encode_candidate(rows).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bounds", [{"limit": 1e12}, {"eps": 1e-12}])
def test_unit_length_in_half_precision(dtype: torch.dtype, bounds: dict[str, float]) -> None:
    """The bounds of the length lie outside of float16: zeros stay zeros, short vectors become unit vectors."""
    layer = L2Normalize((-1,), **bounds)
    x = torch.tensor([[0.0, 0.0], [3e-4, 4e-4], [300.0, 400.0]], dtype=dtype)
    found = layer(x)
    assert found.dtype == dtype and found[0].tolist() == [0.0, 0.0]
    torch.testing.assert_close(found[1:].float(), torch.tensor([[0.6, 0.8]] * 2), rtol=1e-2, atol=0)


def test_read_only_arrays() -> None:
    towers = fresh()
    rows = candidates(20)
    arrays = {key: np.array(column) for key, column in rows.items()}
    for array in arrays.values():
        array.setflags(write=False)
    kept = {key: array.copy() for key, array in arrays.items()}
    assert towers.encode_candidate(arrays).equal(towers.encode_candidate(rows))
    assert all(np.array_equal(arrays[key], kept[key]) for key in arrays)


def test_inputs_are_left_as_they_are() -> None:
    towers = fresh()
    rows = {key: np.array(column, dtype=object if key != "size" else None) for key, column in candidates(20).items()}
    kept = copy.deepcopy(rows)
    towers.encode_candidate(rows)
    assert all(np.array_equal(rows[key], kept[key]) for key in rows)


# -- the package --------------------------------------------------------------------------------------------------------


def test_imports_and_runs_without_a_warning() -> None:
    code = (
        "import sys, torch_towers\n"
        "towers = torch_towers.load(sys.argv[1])\n"
        "assert towers.encode_query(['edit photos']).shape == (1, 64)\n"
        "assert not {'tensorflow', 'porting', 'google.protobuf'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(checkpoint())], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel(tmp_path: Path) -> None:
    """What `pip install` puts in place: both packages with all of their modules, the types, the licence, the command."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("torch_towers", "porting"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    try:
        if int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
            pytest.skip("setuptools before 77")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no setuptools")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = archive.read(f"{info}/METADATA").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
    modules = {
        str(path.relative_to(source))
        for package in ("torch_towers", "porting")
        for path in (source / package).rglob("*.py")
    }
    assert modules <= names and "torch_towers/py.typed" in names
    data = {
        str(path.relative_to(source)) for path in (source / "torch_towers").rglob("*") if path.suffix in (".bin", ".gz")
    }
    assert data <= names
    assert any(name.startswith(f"{info}/") and name.endswith("LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} <= {"torch_towers", "porting", info}
    assert "torch-towers = torch_towers.cli:main" in commands
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)
    assert re.search(r"^License-Expression: Apache-2\.0$", metadata, re.MULTILINE)
    needed = re.findall(r"^Requires-Dist: (\S+?)[>=;]+.*$", metadata.replace("; extra ==", " extra"), re.MULTILINE)
    assert {"torch", "numpy", "safetensors"} <= set(needed)
    plain = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra" not in line]
    assert not any("tensorflow" in line for line in plain)
