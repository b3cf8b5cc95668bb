"""The errors that users of torch_towers meet. Each message is one sentence: what, where, why, and what to do now."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 2000  # characters: a name in a file may be a megabyte


class TorchTowersError(Exception):
    """The base of every error that this project raises on purpose. The middle of a very long sentence is left out."""

    def __str__(self) -> str:
        said = super().__str__()
        return said if len(said) <= _LONGEST else f"{said[: _LONGEST // 2]} ... {said[-_LONGEST // 2 :]}"


class CheckpointError(TorchTowersError):
    """A checkpoint folder is missing something, holds something it must not, or contradicts itself."""


class InputError(TorchTowersError, ValueError):
    """The rows given to a tower do not fit its signature, or TensorFlow's own checks would refuse them."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'cosine'?)"` for a name that is nearly one of those that are known, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
