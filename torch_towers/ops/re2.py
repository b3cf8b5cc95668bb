"""RE2, TensorFlow's own regular expressions."""

from __future__ import annotations

from typing import Any

from torch_towers.errors import InputError

try:
    import re2 as _re2  # type: ignore[reportMissingTypeStubs]

    re2: Any = _re2
except ImportError:  # pragma: no cover  only towers with regular expressions need it
    re2 = None


_MAX_GROUPS = 1000


def compiled(pattern: bytes, *, captures: bool = True) -> Any:
    """The pattern as RE2 compiles it; without `captures` a match has no groups, which take memory that grows with their square.

    Raises InputError with TensorFlow's message where RE2 refuses it (also for a program over RE2's own 8 MiB, as in TensorFlow).
    """
    if re2 is None:
        raise InputError(
            "this tower has regular expressions, and the package google-re2 is not installed: pip install google-re2"
        )
    try:
        return re2.compile(pattern, _options(captures))
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else ""
        raise InputError(f"Invalid pattern: {pattern.decode('utf-8', 'replace')}, error: {reason}") from None


def check_groups(regexp: Any) -> None:
    """Refuses a pattern whose groups are asked for, and are so many that a match takes gigabytes."""
    if regexp.groups > _MAX_GROUPS:
        raise InputError(
            f"a regular expression has {regexp.groups} groups, and they are read: expected at most {_MAX_GROUPS}"
        )


def _options(captures: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = not captures
    return options
