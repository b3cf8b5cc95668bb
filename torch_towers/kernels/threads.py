"""Threads: how many torch takes for a call, set for the calling thread alone.

`torch.set_num_threads` is not for that: a thread that somebody starts meanwhile inherits the number, and keeps it. What torch
computes with is asked instead: OpenMP's `omp_set_num_threads` and MKL's `MKL_Set_Num_Threads_Local`, which by their definitions
change the calling thread only. Where torch brings neither, calls take the threads that they always take.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from torch_towers import machine

torch.get_num_threads()  # by now OpenMP has read its environment
machine.restore()

T = TypeVar("T")


class _Held(threading.local):
    """What `on_one_thread` holds back from this thread: torch's number of threads (0: nothing), and MKL's."""

    threads = 0
    mkl = 0


_held = _Held()
_home = os.getpid()


def threads() -> int:
    """How many threads a call may use that itself tells whether they pay: torch's number, inside `on_one_thread` too."""
    return _held.threads or torch.get_num_threads()


def forked() -> bool:
    """Whether this process was forked by one that had loaded torch.

    It has none of its parent's OpenMP threads, and GNU's OpenMP waits for them for ever.
    """
    return not torch.compiler.is_compiling() and os.getpid() != _home


def on_one_thread(run: Callable[..., T], *operands: Any) -> T:
    """What `run` gives, its torch ops on the caller's thread alone: to wake others takes longer than small work does."""
    before = torch.get_num_threads()  # torch sets a thread's number when it is first asked, and not again
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
    """What `run` gives, on the threads that `on_one_thread` holds back: for the large op among small ones."""
    if not _held.threads or forked():
        return run(*operands)
    _set(_held.threads, _held.mkl)
    try:
        return run(*operands)
    finally:
        _set(1, 1)


def without_waiting(run: Callable[..., T], *operands: Any) -> T:
    """What `run` gives, in a forked process too, where it takes one thread."""
    return on_one_thread(run, *operands) if forked() else run(*operands)


def stay_on_one_thread() -> None:
    """From now on torch's ops run on the calling thread alone: for the threads of a pool."""
    torch.get_num_threads()
    _set(1, 1)


def _setters() -> tuple[Any, Any]:
    """OpenMP's and MKL's functions among those that torch has loaded; None for one that is not there."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            library = ctypes.PyDLL(str(folder / name))  # keeps Python's lock: a call takes a tenth of a microsecond
        except OSError:
            continue
        return getattr(library, "omp_set_num_threads", None), getattr(library, "MKL_Set_Num_Threads_Local", None)
    return None, None


_openmp, _mkl = _setters()


def _set(number: int, mkl: int) -> int:
    """Sets the calling thread's numbers. What MKL's was: 0 where it follows OpenMP's."""
    if _openmp is not None:
        _openmp(number)
    return 0 if _mkl is None else _mkl(mkl)
