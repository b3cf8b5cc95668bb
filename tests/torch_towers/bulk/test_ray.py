"""Ray: `Embedder` without Ray, and the same bytes from a local Ray as from the local engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.torch_towers.towers import DIM, ROWS, id_tower, word_tower
from torch_towers import InputError, load
from torch_towers.bulk import run
from torch_towers.bulk.ray import Embedder
from torch_towers.two_tower import TwoTower

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "towers"
    TwoTower(id_tower(), word_tower(1)).save(path)
    return path


def test_embedder(checkpoint: Path) -> None:
    batch = {"w": np.array(ROWS["word"], dtype=object), "size": np.array(ROWS["size"]), "sku": np.arange(4)}
    batch["size"].flags.writeable = False  # as Ray's are
    found = Embedder(checkpoint, columns={"word": "w"}, output="vector")(batch)
    assert list(found) == ["w", "size", "sku", "vector"] and found["sku"] is batch["sku"]
    assert found["vector"].dtype == np.float32 and found["vector"].shape == (4, DIM)
    assert (found["vector"] == load(checkpoint).encode_candidate(ROWS, convert_to_numpy=True)).all()
    assert np.allclose(np.linalg.norm(Embedder(checkpoint, normalize_embeddings=True)(ROWS)["embedding"], axis=1), 1)
    with pytest.raises(InputError, match="'word' is missing"):
        Embedder(checkpoint)(batch)
    TwoTower(id_tower()).save(checkpoint.parent / "one")
    with pytest.raises(InputError, match="no candidate tower"):
        Embedder(checkpoint.parent / "one")


def test_the_class_needs_no_ray() -> None:
    code = "import sys, torch_towers.bulk.ray; sys.exit(str(sorted({'ray', 'pyarrow', 'pandas'} & set(sys.modules)) or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.slow
def test_ray_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from tests.torch_towers.bulk.jobs import files_of, job, rows, write

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}
    )
    try:
        table = rows(60)
        inputs = [write(tmp_path / "a.parquet", table[:40]), write(tmp_path / "b.jsonl", table[40:])]
        run(job(checkpoint, inputs, tmp_path / "local"))
        done = run(job(checkpoint, inputs, tmp_path / "ray"), engine="ray", workers=1)
        assert done.rows == 60 and files_of(tmp_path / "ray") == files_of(tmp_path / "local")
        (tmp_path / "ray" / "part-00000-000001.parquet").unlink()  # as where it was killed before that part
        manifest = tmp_path / "ray.job" / "manifest.jsonl"
        lines = manifest.read_text().splitlines(keepends=True)
        manifest.write_text(
            "".join(
                line for line in lines if '"part":[0,1]' not in line and "done" not in line and '{"file":0' not in line
            )
        )
        again = run(job(checkpoint, inputs, tmp_path / "ray"), engine="ray", workers=1)
        assert again.new_rows == 12 and files_of(tmp_path / "ray") == files_of(tmp_path / "local")
        bad = write(tmp_path / "c.jsonl", [*table[:3], {"sku": "x"}])
        from torch_towers.bulk import BulkError

        with pytest.raises(BulkError, match="row 3: feature 'word': is missing"):
            run(job(checkpoint, bad, tmp_path / "bad"), engine="ray")
    finally:
        ray.shutdown()
