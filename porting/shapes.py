"""Shapes without torch's compiler: the runtime's listing finds them the same way."""

from torch_towers.shapes import WithoutCompiler

__all__ = ["WithoutCompiler"]
