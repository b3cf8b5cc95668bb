"""The demo: ports the two SavedModels, compares them with TensorFlow, and runs queries.

python examples/packages/demo.py
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import torch_towers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHECKPOINT = ROOT / "checkpoints" / "packages"
QUERIES = ("edit photos", "play music", "chess game", "compress files")


def port() -> int:
    """Runs the porter like a user; returns its exit status."""
    command = [
        "porting/port.py", "--query", "examples/packages/query_model", "--candidate", "examples/packages/candidate_model",
        "-o", "checkpoints/packages",
    ]  # fmt: skip
    print("$ python", *command, flush=True)
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode


def packages() -> list[dict[str, object]]:
    """The rows of packages.tsv, with the features of the candidate tower."""
    with (HERE / "packages.tsv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            {
                "name": row["name"],
                "section": row["section"],
                "description": row["description"],
                "size": float(row["size"]),
            }
            for row in rows
        ]


def main() -> int:
    """Ports, then runs queries; the exit status is the porter's."""
    status = port()
    if status:
        return status
    towers = torch_towers.load(CHECKPOINT)
    rows = packages()
    candidates = towers.encode_candidate(rows, batch_size=1024, show_progress_bar=sys.stderr.isatty())
    print(f"\n{len(rows)} packages embedded: {list(candidates.shape)} {candidates.dtype}")
    scores, indices = towers.top_k(towers.encode_query({"text": list(QUERIES)}), candidates, k=5)
    for query, row_scores, row_indices in zip(QUERIES, scores.tolist(), indices.tolist(), strict=True):
        print(f"\n{query}")
        for score, index in zip(row_scores, row_indices, strict=True):
            print(f"  {score:.3f}  {rows[index]['name']:<22} {str(rows[index]['description'])[:70]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
