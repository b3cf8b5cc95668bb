"""Fine-tunes a port in PyTorch: a hundred steps on pairs of queries and candidates, then saves and loads it.

    python examples/fine_tune.py CHECKPOINT PAIRS.jsonl OUTPUT

A line of PAIRS is {"query": {...}, "candidate": {...}}, Vertex's training format for two-tower models.
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

    # 1. The towers. `tower.encoder` is an ordinary nn.Module; `tower.preprocess` turns rows into its tensors.
    towers = torch_towers.load(given.checkpoint)
    query, candidate = towers.query, towers.candidate
    assert query is not None and candidate is not None
    encoders = torch.nn.ModuleList([query.encoder, candidate.encoder])
    optimizer = torch.optim.Adam(
        encoders.parameters(), lr=given.learning_rate
    )  # weights that both towers share appear once

    # 2. The pairs. A single value may be a list of one, as Vertex writes it.
    with open(given.pairs, encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]

    def embed(tower: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
        batch = {spec.name: [row[spec.name] for row in rows] for spec in tower.inputs}
        return tower.encoder(**tower.preprocess(batch))[tower.embedding]

    # 3. The loss of TFRS's Retrieval task: each query's own candidate among all candidates of the batch.
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

    # 4. Save a checkpoint, for `load` and the command.
    towers.save(given.output)
    again = torch_towers.load(given.output)
    rows = [pair["query"] for pair in pairs[:4]]
    assert again.encode_query(rows).equal(towers.encode_query(rows))
    print(f"wrote {given.output}")
    return losses


if __name__ == "__main__":
    main()
