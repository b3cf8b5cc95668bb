"""RE2, TensorFlow's own regular expressions."""

from __future__ import annotations

from typing import Any

from torch_towers.errors import InputError

try:
    import re2 as _re2  # type: ignore[reportMissingTypeStubs]

    re2: Any = _re2
except ImportError:  # pragma: no cover  only towers with regular expressions need it
    re2 = None


def compiled(pattern: bytes) -> Any:
    """The pattern as RE2 compiles it. Raises InputError with TensorFlow's message where RE2 refuses it."""
    if re2 is None:
        raise InputError(
            "this tower has regular expressions, and the package google-re2 is not installed: pip install google-re2"
        )
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else ""
        raise InputError(f"Invalid pattern: {pattern.decode('utf-8', 'replace')}, error: {reason}") from None


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    return options
