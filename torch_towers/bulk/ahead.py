"""Prefetching: produces items in background threads, in order and in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")
_END = object()


def ahead(items: Generator[T], most: int = 1) -> Generator[T]:
    """Produces `items` in a thread, in the same order, at most `most` ahead.

    Errors of `items` are raised at their place. The thread has ended when this generator is closed or raises.
    """
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    places = threading.Semaphore(most)
    closed = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put((item, None))
                places.acquire()
                if closed.is_set():
                    items.close()
                    return
            made.put((_END, None))
        except BaseException as error:
            made.put((_END, error))

    thread = threading.Thread(target=make, name="torch_towers bulk", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield cast(T, item)
            places.release()
    finally:
        closed.set()
        places.release()
        thread.join()


def in_order(
    run: Callable[[T], R],
    items: Generator[T],
    pool: ThreadPoolExecutor,
    most: int,
    size: Callable[[T], int],
    budget: int,
) -> Generator[tuple[T, R]]:
    """Each item and its result of `run`, computed in the pool, in the order of the items.

    At most `most` items are in flight, and only one while their total size exceeds `budget`. Errors of `items` and
    `run` are raised at their place. """  # fmt: skip
    waiting: deque[tuple[T, Future[R]]] = deque()
    held, left = 0, True
    failed: Exception | None = None
    try:
        with closing(items):
            while left or waiting:
                while left and (not waiting or (len(waiting) < most and held <= budget)):
                    try:
                        item = next(items)
                    except StopIteration:
                        left = False
                    except Exception as error:
                        failed, left = error, False
                    else:
                        waiting.append((item, pool.submit(run, item)))
                        held += size(item)
                if waiting:
                    item, found = waiting.popleft()
                    made = found.result()
                    held -= size(item)
                    yield item, made
        if failed is not None:
            raise failed
    finally:
        for _, found in waiting:
            found.cancel()
