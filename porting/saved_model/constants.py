"""Evaluates the few ops between a constant and the variable or table it fills, without executing the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.calls import Bodies, Scope, Site, data_inputs, output_index
from porting.saved_model.decode import decode_tensor
from porting.saved_model.dtypes import dtype_of

_EVALUATED = ("Cast", "Range", "Reshape", "ExpandDims")
_MAX_ELEMENTS = 1 << 26
_MAX_DEPTH = 50


class Constants:
    """Evaluates references to numpy arrays, strings to object arrays of bytes."""

    def __init__(self, bodies: Bodies, restore: Callable[[str], np.ndarray]) -> None:
        """`restore` returns the tensor of a checkpoint key."""
        self._bodies = bodies
        self._restore = restore
        self._restored: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def value(self, scope: Scope, reference: str, depth: int = 0) -> np.ndarray:
        """The value of `reference` in `scope`. Raises PortingError if it depends on more than constants and the
        checkpoint."""
        site = self._bodies.origin(scope, reference)
        node = site.node
        if node is None or depth > _MAX_DEPTH:
            raise PortingError(
                f"{self._bodies.where}: '{reference}' is not a constant, so the contents that it fills are unknown"
            )
        where = f"{self._bodies.where}: node '{node.name}' ({node.op})"
        if node.op == "Const":
            value = decode_tensor(node.attr["value"].tensor, where)
            if not isinstance(value, np.ndarray):
                raise PortingError(f"{where}: a constant of a dtype that numpy lacks, which is not supported here")
            return value
        if node.op == "RestoreV2":
            return self._restore(self.restored_key(site)[0])
        if node.op not in _EVALUATED:
            raise PortingError(
                f"{where}: computes what fills a variable or table; only {', '.join(_EVALUATED)}, constants and the checkpoint are followed"
            )
        operands = [self.value(site.scope, operand, depth + 1) for operand in data_inputs(node)]
        try:
            return _evaluate(node, operands, where)
        except (TypeError, ValueError, OverflowError, IndexError, AttributeError) as error:
            raise CorruptModelError(f"{where}: cannot be evaluated ({error})") from error

    def restored_key(self, site: Site) -> tuple[str, str]:
        """(checkpoint key, slice specification) of an output of a RestoreV2 node. The specification is "" for a whole
        tensor."""
        where = f"{self._bodies.where}: node '{site.node.name}' (RestoreV2)"
        operands = data_inputs(site.node)
        index = output_index(site.output)
        if len(operands) != 3:
            raise CorruptModelError(f"{where}: {len(operands)} operands, expected 3")
        cache_key = (id(site.scope), site.node.name)
        if cache_key not in self._restored:
            self._restored[cache_key] = (
                self.value(site.scope, operands[1]).reshape(-1),
                self.value(site.scope, operands[2]).reshape(-1),
            )
        names, slices = self._restored[cache_key]
        if index >= len(names) or index >= len(slices):
            raise CorruptModelError(
                f"{where}: output {index}, expected fewer than the {len(names)} tensors that it restores"
            )
        return names[index].decode("utf-8", "surrogateescape"), slices[index].decode("utf-8", "surrogateescape")


def _evaluate(node: Any, operands: list[np.ndarray], where: str) -> np.ndarray:
    if node.op == "Cast":
        numpy_dtype = dtype_of(node.attr["DstT"].type, where).numpy
        if numpy_dtype is None or numpy_dtype.hasobject or operands[0].dtype.hasobject:
            raise ValueError(f"from {operands[0].dtype} to {numpy_dtype}")
        return operands[0].astype(numpy_dtype)
    if node.op == "Range":
        start, limit, delta = (operand.item() for operand in operands)
        if delta == 0 or abs((limit - start) / delta) > _MAX_ELEMENTS:
            raise ValueError(f"range({start}, {limit}, {delta})")
        return np.arange(start, limit, delta, dtype=operands[0].dtype)
    if node.op == "Reshape":
        return operands[0].reshape([int(size) for size in operands[1].reshape(-1)])
    return np.expand_dims(operands[0], int(operands[1].item()))
