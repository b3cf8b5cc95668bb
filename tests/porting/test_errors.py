"""Whatever goes wrong inside a SavedModel becomes an error of ours that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from porting.errors import CorruptModelError, PortingError, naming

PATH = Path("/models/shop")


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError("deep"), MemoryError(), ZeroDivisionError("0"), TypeError("t")]
)
def test_what_no_check_foresaw(error: Exception) -> None:
    with (
        pytest.raises(CorruptModelError, match=f"^/models/shop: cannot be read \\({type(error).__name__}") as caught,
        naming(PATH, "read"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(CorruptModelError) as caught, naming(PATH, "read"):
        raise ValueError("x" * 10_000)
    assert len(str(caught.value)) < 500


def test_ours_is_named_once() -> None:
    with pytest.raises(PortingError, match=r"^/models/shop: no such entry$"), naming(PATH, "read"):
        raise PortingError("no such entry")
    with pytest.raises(PortingError, match=r"^/models/shop/x: is damaged$"), naming(PATH, "read"):
        raise PortingError(f"{PATH}/x: is damaged")


def test_what_the_user_does_passes() -> None:
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error), naming(PATH, "read"):
            raise error
