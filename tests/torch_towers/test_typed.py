"""Type checking of users' scripts: correct calls pass, misspelt options and engines do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np
from torch import Tensor, nn
from torch_towers import TwoTower, load
from torch_towers.search.similarity import distance, similarity, similarity_pairwise, top_k

towers: TwoTower = load("somewhere", dtype="float16")
tensor: Tensor = towers.encode_query(["a"], batch_size=3)
array: np.ndarray = towers.encode_candidate(["a"], convert_to_numpy=True, normalize_embeddings=True)
assert towers.query is not None
either: Tensor | np.ndarray = towers.query.encode(["a"], convert_to_numpy=bool(len(array)))
module: nn.Module = towers.to("cpu").eval()
index = towers.index(tensor, ["a"], engine="hnsw", links=16, quiet=True)
scores: Tensor = towers.similarity(tensor, tensor)
scores, places = top_k(similarity(tensor, tensor, "cosine"), distance(tensor, tensor, "L1_DISTANCE"), 3, kind="dot")
towers.encode_query(["a"], bach_size=3)  # wrong
towers.encode_document(["a"], batch_size="3")  # wrong
towers.query.encode(["a"], to_numpy=True)  # wrong
towers.index(tensor, engine="hsnw")  # wrong
towers.index(tensor, lnks=3)  # wrong
TwoTower(similarity="cosin")  # wrong
similarity(tensor, tensor, "dott")  # wrong
similarity_pairwise(tensor, tensor, kind="manhattan")  # wrong
top_k(tensor, tensor, 3, "cosin")  # wrong
distance(tensor, tensor, "L2_DISTANCE")  # wrong
other: Tensor = towers.encode_query(["a"], convert_to_numpy=True)  # wrong
third: np.ndarray = towers.encode_query(["a"])  # wrong
towers.query(["a"]).embedding  # wrong
"""


def test_a_users_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    config = {"include": ["script.py"], "extraPaths": [str(ROOT)], "reportMissingTypeArgument": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    lines = {item["range"]["start"]["line"]: item["message"] for item in found if item["severity"] == "error"}
    wrong = {number for number, line in enumerate(SCRIPT.splitlines()) if line.endswith("# wrong")}
    assert lines.keys() == wrong, lines
