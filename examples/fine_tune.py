"""Fine-tuning a port in a PyTorch codebase: a hundred steps on pairs of queries and candidates, then saved and loaded again.

    python examples/fine_tune.py CHECKPOINT PAIRS.jsonl OUTPUT

A line of PAIRS is {"query": {...}, "candidate": {...}}: the format in which Vertex trains two-tower models.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

import torch_towers


def main(arguments: Sequence[str] | None = None) -> list[float]:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkpoint")
    options.add_argument("pairs")
    options.add_argument("output")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--learning-rate", type=float, default=1e-3)
    options.add_argument("--temperature", type=float, default=0.1)
    given = options.parse_args(arguments)
    torch.manual_seed(0)

    # 1. The towers. `tower.encoder` is an nn.Module like any other; `tower.preprocess` turns rows into its tensors.
    towers = torch_towers.load(given.checkpoint)
    query, candidate = towers.query, towers.candidate
    assert query is not None and candidate is not None
    encoders = torch.nn.ModuleList([query.encoder, candidate.encoder])
    optimizer = torch.optim.Adam(
        encoders.parameters(), lr=given.learning_rate
    )  # weights that both share are there once

    # 2. The pairs. A feature of one value may stand in a list of one, as Vertex writes it.
    with open(given.pairs, encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]

    def embed(tower: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
        batch = {spec.name: [row[spec.name] for row in rows] for spec in tower.inputs}
        return tower.encoder(**tower.preprocess(batch))[tower.embedding]

    # 3. The loss of TFRS's Retrieval task: of all candidates of the batch, its own is the right one.
    losses: list[float] = []
    for step in range(given.steps):
        chosen = [pairs[i] for i in torch.randperm(len(pairs))[: given.batch_size].tolist()]
        scores = towers.similarity(
            embed(query, [pair["query"] for pair in chosen]), embed(candidate, [pair["candidate"] for pair in chosen])
        )
        loss = functional.cross_entropy(scores / given.temperature, torch.arange(len(chosen)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0 or step == given.steps - 1:
            print(f"step {step:4d}  loss {losses[-1]:.4f}")

    # 4. Saved as a checkpoint, which `load` and the command take like any other.
    towers.save(given.output)
    again = torch_towers.load(given.output)
    rows = [pair["query"] for pair in pairs[:4]]
    assert again.encode_query(rows).equal(towers.encode_query(rows))
    print(f"wrote {given.output}")
    return losses


if __name__ == "__main__":
    main()
