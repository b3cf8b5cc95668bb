"""The order in which rewrites run."""

from __future__ import annotations

from porting.lifting.registry import REWRITES
from porting.rewrites import ORDER


def test_rewrites_run_in_the_order_of_their_files_and_each_file_has_a_place() -> None:
    assert tuple(REWRITES) == ORDER
    assert all(item.apply.__module__ == f"porting.rewrites.{file}" for file in ORDER for item in REWRITES[file])
