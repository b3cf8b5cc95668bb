"""RE2, TensorFlow's regular expression library."""

from __future__ import annotations

from typing import Any

from torch_towers.errors import InputError

try:
    import re2 as _re2  # type: ignore[reportMissingTypeStubs]

    re2: Any = _re2
except ImportError:  # pragma: no cover  only needed by towers with regular expressions
    re2 = None


_MAX_GROUPS = 1000


def compiled(pattern: bytes, *, captures: bool = True) -> Any:
    """Compiles a pattern with RE2. Without `captures` a match has no groups, whose memory grows with their square.

    Raises InputError with TensorFlow's message if RE2 refuses it (also for a program over RE2's limit of 8 MiB, as in
    TensorFlow).
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
    """Refuses a pattern whose groups are read and so many that a match would take gigabytes."""
    if regexp.groups > _MAX_GROUPS:
        raise InputError(
            f"a regular expression has {regexp.groups} groups: expected at most {_MAX_GROUPS} where groups are read"
        )


def _options(captures: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = not captures
    return options
