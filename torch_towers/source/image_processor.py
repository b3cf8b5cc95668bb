"""Writes the image processor of a folder of transformers, for an encoder that takes the tower's images as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch_towers.graph.registry import MODULES, OPS
from torch_towers.source.transformer import Transformer
from torch_towers.tower import Tower

_STEPS = ("resize", "rescale", "normalize")


def write_image_processor(tower: Tower, found: Transformer, folder: Path, kind: str) -> str:
    """Writes preprocessor_config.json of `kind` ("ViT", "CLIP") to `folder`; returns one sentence about what it does or
    lacks."""
    if found.images is None:
        return ""
    graph = tower.parts["preprocess"].graph
    if graph.outputs[found.ids] not in {spec.name for spec in graph.inputs}:
        kinds = [
            graph.modules[str(node.attrs["module"])].type if node.op == "module" else node.op
            for node in graph.nodes
            if node.op in OPS or (node.op == "module" and graph.modules[str(node.attrs["module"])].type in MODULES)
        ]
        steps = ", ".join([*dict.fromkeys(kinds)][:8])
        return (
            f"no image processor is in it: the preprocessing, which stays in torch_towers, makes the pixels ({steps})"
        )
    height, width = found.images.sizes
    config: dict[str, Any] = {
        "image_processor_type": f"{kind}ImageProcessor",
        "size": {"height": height, "width": width},
    }
    config |= {f"do_{step}": False for step in _STEPS}
    config |= {"do_center_crop": False, "do_convert_rgb": False} if kind == "CLIP" else {}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return f"its image processor changes no pixels: it takes images of {height} by {width} with the values that the tower takes"
