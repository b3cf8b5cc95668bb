"""Errors that users see. Each message is one sentence: what, where, why, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_LENGTH = 2000  # characters: a name in a file may have a megabyte


class TorchTowersError(Exception):
    """Base class of all errors that this project raises on purpose. Very long messages are truncated in the middle."""

    def __str__(self) -> str:
        said = super().__str__()
        return said if len(said) <= _MAX_LENGTH else f"{said[: _MAX_LENGTH // 2]} ... {said[-_MAX_LENGTH // 2 :]}"


class CheckpointError(TorchTowersError):
    """A checkpoint folder is incomplete, contains something invalid, or contradicts itself."""


class InputError(TorchTowersError, ValueError):
    """The rows given to a tower do not match its signature, or fail TensorFlow's own checks."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'cosine'?)"` if `name` is close to a known name, else the empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
