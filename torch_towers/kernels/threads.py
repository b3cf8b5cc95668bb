"""The number of threads that torch uses, set for the calling thread only.

`torch.set_num_threads` does not work for this: a thread started meanwhile inherits the number and keeps it. This calls
OpenMP's `omp_set_num_threads` and MKL's `MKL_Set_Num_Threads_Local` instead, which by definition affect the calling
thread only. If torch ships neither, calls use the default number of threads.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from torch_towers import machine, memory
from torch_towers.kernels.fast_path import readable

torch.get_num_threads()  # makes OpenMP read its environment
machine.restore()
memory.keep()

T = TypeVar("T")


class _Held(threading.local):
    """The thread counts that `on_one_thread` overrides in this thread: torch's (0: not overridden) and MKL's."""

    threads = 0
    mkl = 0


_held = _Held()
_home = os.getpid()


def threads() -> int:
    """How many threads a call may use if it decides itself whether they pay off: torch's number, also inside
    `on_one_thread`."""
    return _held.threads or torch.get_num_threads()


def forked() -> bool:
    """Whether this process is a fork of one that had loaded torch.

    It has none of its parent's OpenMP threads, and GNU's OpenMP would wait for them forever.
    """
    return not torch.compiler.is_compiling() and os.getpid() != _home


def on_one_thread(run: Callable[..., T], *operands: Any) -> T:
    """Runs `run` with its torch ops on the calling thread only: for small work, waking others takes longer."""
    before = torch.get_num_threads()  # initializes the thread's number, which torch does only once
    if before == 1:
        return run(*operands)
    _held.mkl = _set(1, 1)
    _held.threads = before
    try:
        return run(*operands)
    finally:
        _set(before, _held.mkl)
        _held.threads = 0


def on_all_threads(run: Callable[..., T], *operands: Any) -> T:
    """Runs `run` on the threads that `on_one_thread` holds back: for a large op among small ones."""
    if not _held.threads or forked():
        return run(*operands)
    _set(_held.threads, _held.mkl)
    try:
        return run(*operands)
    finally:
        _set(1, 1)


def spread(run: Callable[[range], list[T]], count: int) -> list[T]:
    """The results of `run` on ranges that make up `range(count)`, in order, on as many threads as torch may use.

    `run` should take long and release Python's lock. Its torch ops stay on their thread. Errors: that of the first range.
    """
    workers = min(threads(), count)
    if workers < 2 or forked() or not readable():
        return run(range(count))
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def part(index: int) -> list[T]:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return run(range(count * index // workers, count * (index + 1) // workers))

    with ThreadPoolExecutor(workers, initializer=stay_on_one_thread) as pool:
        parts = [pool.submit(copy_context().run, part, index) for index in range(workers)]
        return [result for done in parts for result in done.result()]


def without_waiting(run: Callable[..., T], *operands: Any) -> T:
    """Runs `run` without deadlock in a forked process, where it uses one thread."""
    return on_one_thread(run, *operands) if forked() else run(*operands)


def stay_on_one_thread() -> None:
    """Restricts torch's ops on the calling thread to one thread from now on: for the threads of a pool."""
    torch.get_num_threads()
    _set(1, 1)


def _setters() -> tuple[Any, Any]:
    """The setters of the OpenMP and MKL libraries that torch has loaded; None if absent."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            library = ctypes.PyDLL(str(folder / name))  # does not release the GIL: a call takes 0.1 microseconds
        except OSError:
            continue
        return getattr(library, "omp_set_num_threads", None), getattr(library, "MKL_Set_Num_Threads_Local", None)
    return None, None


_openmp, _mkl = _setters()


def _set(number: int, mkl: int) -> int:
    """Sets the calling thread's numbers. Returns MKL's previous one: 0 if it follows OpenMP's."""
    if _openmp is not None:
        _openmp(number)
    return 0 if _mkl is None else _mkl(mkl)
