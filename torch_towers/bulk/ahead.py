"""Ahead: what an iterator gives, made in a thread of its own while its taker works."""

from __future__ import annotations

import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END = object()


def ahead(items: Generator[T], most: int = 2) -> Generator[T]:
    """The same items in the same order, at most `most` of them waiting, so that memory stays bounded.

    An error of `items` is raised where it would have been. The thread has ended when this is closed, or raises.
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
