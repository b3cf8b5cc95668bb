"""model.safetensors: mapped and not copied, and read without trust."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_towers
from tests.torch_towers.checkpoint.test_checkpoint import config_of, refused, reseal
from tests.torch_towers.towers import (
    ROWS,
    two_towers,
)
from torch_towers import load


def test_weights_are_mapped_not_copied(saved: Path) -> None:
    towers = load(saved)
    assert towers.query is not None
    with open(f"/proc/{os.getpid()}/maps") as maps:
        spans = [line.split()[0] for line in maps if "model.safetensors" in line]
    address = towers.query.encoder.dense.weight.data_ptr()
    assert any(int(s.split("-")[0], 16) <= address < int(s.split("-")[1], 16) for s in spans)
    before = (saved / "model.safetensors").read_bytes()
    with torch.no_grad():
        towers.query.encoder.dense.weight.add_(1)  # private: training never writes to the file
    assert (saved / "model.safetensors").read_bytes() == before


def test_saving_over_the_file_that_is_mapped(saved: Path) -> None:
    towers = load(saved)
    assert towers.query is not None
    with torch.no_grad():
        towers.query.encoder.dense.bias.add_(1)
    expected = towers.encode_query(ROWS)
    towers.save(saved)
    assert towers.encode_query(ROWS).equal(expected) and load(saved).encode_query(ROWS).equal(expected)
    assert not two_towers().encode_query(ROWS).equal(expected)


def weights_attack(path: Path, header: Any, data: bytes, raw: bytes | None = None) -> None:
    """Replaces model.safetensors and fixes all digests."""
    text = raw if raw is not None else json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + data
    (path / "model.safetensors").write_bytes(content)
    config = config_of(path)
    config["weights"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
                         "header_sha256": hashlib.sha256(content[: 8 + len(text)]).hexdigest()}  # fmt: skip
    reseal(path, config)


HEADERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a tensor fewer": (lambda h: h.pop("query.scale"), "lacks 'query.scale'"),
    "a tensor more": (lambda h: h.update({"query.x": h["query.scale"]}), "holds 'query.x'"),
    "another dtype": (lambda h: h["query.scale"].update(dtype="I32"), "is I32; config.json says float32"),
    "a dtype that is none": (lambda h: h["query.scale"].update(dtype="F8_E4M3"), "config.json says float32"),
    "another shape": (lambda h: h["query.scale"].update(shape=[2, 2]), "config.json says"),
    "a shape of text": (lambda h: h["query.scale"].update(shape="4"), "must be an array"),
    "a shape with a bool": (lambda h: h["query.scale"].update(shape=[True]), "has the shape"),
    "a shape that overflows": (lambda h: h["query.scale"].update(shape=[1 << 70]), "has the shape"),
    "offsets beyond the file": (lambda h: h["query.scale"].update(data_offsets=[1 << 40, (1 << 40) + 16]), "within"),
    "offsets backwards": (lambda h: h["query.scale"].update(data_offsets=h["query.scale"]["data_offsets"][::-1]), "it needs 16 bytes"),
    "negative offsets": (lambda h: h["query.scale"].update(data_offsets=[-16, 0]), "offsets"),
    "three offsets": (lambda h: h["query.scale"].update(data_offsets=[0, 16, 32]), "offsets"),
    "an overlap": (lambda h: h["query.scale"].update(data_offsets=h["query.dense.bias"]["data_offsets"]), "overlap or leave a gap"),
    "an unknown key": (lambda h: h["query.scale"].update(code=1), "unknown key"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", HEADERS.values(), ids=HEADERS.keys())
def test_attacks_on_the_weights(saved: Path, change: Callable[[Any], Any], message: str) -> None:
    content = (saved / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    weights_attack(saved, header, content[8 + length :])
    load(saved)
    change(header)
    weights_attack(saved, header, content[8 + length :])
    refused(saved, message)


@pytest.mark.parametrize("raw, message", [(b"", "is not JSON"), (b"[]", "must be an object"), (b'{"a":1,"a":1}', "twice"),
                                          (b"\xff{}", "not JSON"), (b"[" * 10_000, "deeply|not JSON")])  # fmt: skip
def test_headers_that_are_none(saved: Path, raw: bytes, message: str) -> None:
    weights_attack(saved, None, b"", raw)
    refused(saved, message)


def test_bytes_after_the_last_tensor_and_a_header_beyond_the_file(saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    weights_attack(saved, None, content[8 + length :] + b"tail", content[8 : 8 + length])
    refused(saved, "4 bytes belong to no tensor")
    two_towers().save(saved)
    for claim in (1 << 63, 100_000_001, length + len(content)):
        (saved / "model.safetensors").write_bytes(struct.pack("<Q", claim) + content[8:])
        refused(saved, "beyond the file")


def test_verify_reads_large_weights_only_when_asked(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_towers.checkpoint.checkpoint, "SMALL", 10)
    file = saved / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    load(saved)
    load(saved, verify=False)
    refused(saved, "its sha256", verify=True)
    data[-1] ^= 1
    file.write_bytes(data)
    load(saved, verify=True)
