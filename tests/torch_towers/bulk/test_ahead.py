"""Work ahead, in threads: the same items in the same order, few at a time, and no thread left."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from torch_towers.bulk import BulkError
from torch_towers.bulk.ahead import ahead, in_order


def test_ahead_gives_the_same_items_and_keeps_few() -> None:
    made: list[int] = []

    def items(fail: bool = False) -> Generator[int]:
        for i in range(100):
            made.append(i)
            yield i
        if fail:
            raise BulkError("at the end")

    for i, item in enumerate(ahead(items(), 3)):
        assert item == i and len(made) <= i + 1 + 3 + 1
    assert made == list(range(100))
    found: list[int] = []
    with pytest.raises(BulkError, match="at the end"):
        for item in ahead(items(fail=True)):
            found.append(item)
    assert found == list(range(100))


@pytest.mark.parametrize("budget, most_under_way", [(10**9, 5), (0, 1), (25, 3)])
def test_in_order_gives_what_a_loop_gives(budget: int, most_under_way: int) -> None:
    choose, under_way, most = random.Random(0), [0], [0]
    waits = [choose.uniform(0, 0.003) for _ in range(40)]

    def items(fail: bool) -> Generator[int]:
        for i in range(40):
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            yield i
        if fail:
            raise BulkError("at the end")

    def run(i: int) -> int:
        time.sleep(waits[i])
        if i == failing:
            raise BulkError(f"at {i}")
        return i * i

    for failing, said in ((None, None), (None, "at the end"), (17, "at 17")):
        found: list[tuple[int, int]] = []
        under_way[0] = 0
        with ThreadPoolExecutor(3) as pool, pytest.raises(BulkError, match=said) if said else contextlib.nullcontext():
            for pair in in_order(run, items(said == "at the end"), pool, 5, lambda i: 10, budget):
                under_way[0] -= 1
                found.append(pair)
        assert found == [(i, i * i) for i in range(40 if failing is None else failing)]
    assert most[0] == most_under_way


def test_ahead_ends_its_thread_when_it_is_closed() -> None:
    closed: list[str] = []

    def items(name: str) -> Generator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(name)

    def inner() -> Generator[int]:
        with closing(ahead(items("read"))) as read:
            yield from read

    before = threading.active_count()
    with closing(ahead(inner())) as outer:
        assert [next(outer) for _ in range(5)] == list(range(5)) and threading.active_count() == before + 2
    assert closed == ["read"] and threading.active_count() == before
