"""Unique names of TF nodes.

They are numbered like TensorFlow's, `name_1` after `name`; `porting.names` numbers like PyTorch layers, `name_2` after
`name`.
"""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Hands out each name once: `name`, then `name_1`, `name_2`, ..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def unique(self, name: str) -> str:
        candidate = name
        while candidate in self._taken:
            self._next[name] = self._next.get(name, 0) + 1
            candidate = f"{name}_{self._next[name]}"
        self._taken.add(candidate)
        return candidate
