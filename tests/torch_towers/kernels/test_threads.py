"""Many threads on one tower, and in processes forked after a run: bit-exact with one thread, and torch's thread counts are unchanged."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.torch_towers.ports import candidates, checkpoint, queries
from tests.torch_towers.towers import ROWS, word_tower
from torch_towers import TwoTower, load
from torch_towers.errors import InputError
from torch_towers.kernels.threads import (
    on_all_threads,
    on_one_thread,
    spread,
    stay_on_one_thread,
    threads,
    without_waiting,
)

THREADS = 16


def jobs() -> list[tuple[str, Any, int]]:
    """Side, rows and batch size: from one row to several batches, and one large enough for parallel kernels."""
    found: list[tuple[str, Any, int]] = []
    for index, count in enumerate((1, 2, 3, 40, 100, 250, 600)):
        found += [("query", queries(count, index), 64), ("candidate", candidates(count, index), 1024)]
    return found


def run(towers: TwoTower, job: tuple[str, Any, int]) -> np.ndarray[Any, Any]:
    name, rows, batch_size = job
    encode = towers.encode_query if name == "query" else towers.encode_candidate
    return encode(rows, batch_size=batch_size, convert_to_numpy=True)


def test_sixteen_threads_give_the_bits_of_one() -> None:
    work = jobs()
    serial = [run(load(checkpoint()), job) for job in work]
    towers = load(checkpoint())  # not run before: the threads race for what is made at first use as well
    barrier = threading.Barrier(THREADS)

    def worker(start: int) -> list[int]:
        barrier.wait()
        order = [(start + step) % len(work) for step in range(len(work))]
        return [index for index in order if not np.array_equal(run(towers, work[index]), serial[index])]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns in the middle of everything
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            wrong = [item for found in pool.map(worker, range(THREADS)) for item in found]
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


def test_errors_stay_in_their_thread() -> None:
    towers = load(checkpoint())
    good, expected = queries(5), towers.encode_query(queries(5))

    def worker(index: int) -> bool:
        if index % 2:
            with pytest.raises(Exception, match="row 1"):
                towers.encode_query(["fine", None])
            return True
        return towers.encode_query(good).equal(expected)

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(worker, range(64)))


def test_training_beside_encoding() -> None:
    """`encode` turns gradients off for its own thread only."""
    towers = load(checkpoint())
    assert towers.query is not None
    tower = towers.query
    stop = threading.Event()

    def encode() -> None:
        while not stop.is_set():
            tower.encode(queries(3))

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(encode)
        try:
            tensors = tower.preprocess(queries(4))
            for _ in range(20):
                assert tower.encoder(**tensors)[tower.embedding].requires_grad and torch.is_grad_enabled()
        finally:
            stop.set()
        running.result()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_ranges_are_spread_over_threads_in_order(number: int, count: int) -> None:
    """The caller's context and modes hold in the threads."""
    seen_in: set[tuple[bool, int]] = set()

    def run(part: range) -> list[int]:
        seen_in.add((torch.is_inference_mode_enabled(), torch.get_num_threads() if number > 1 else 1))
        if 5 in part:
            raise InputError(f"{part.start}")
        return [*part]

    with torch.inference_mode():
        if count > 5:
            with pytest.raises(InputError):
                spread(run, count)
        else:
            assert spread(run, count) == [*range(count)]
    assert seen_in <= {(True, 1), (True, number)}
    assert seen() == (number, number)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_fork() -> None:
    """A child of a process that has run the towers gives its bits, and ends."""
    towers = load(checkpoint())
    work = jobs()
    expected = [on_one_thread(run, towers, job) for job in work]  # as the children do
    context, threads = multiprocessing.get_context("fork"), torch.get_num_threads()

    def child(connection: Any) -> None:
        connection.send([run(towers, job) for job in work])

    children: list[tuple[Any, Any]] = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs,))
        process.start()
        children.append((process, ours))
    for process, ours in children:
        try:
            assert ours.poll(60), "the child hangs"
            assert all(np.array_equal(a, b) for a, b in zip(ours.recv(), expected, strict=True))
            process.join(10)
            assert process.exitcode == 0
        finally:
            process.kill()
    assert np.array_equal(on_one_thread(run, towers, work[0]), expected[0]) and torch.get_num_threads() == threads


# -- how many threads torch takes -----------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 3])
def number(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def seen() -> tuple[int, int]:
    return torch.get_num_threads(), threads()


def seen_by_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_a_call_on_one_thread_and_on_all(number: int) -> None:
    assert seen() == on_all_threads(seen) == without_waiting(seen) == (number, number)
    assert on_one_thread(seen) == (1, number)
    assert on_one_thread(lambda: (on_all_threads(seen), seen())) == ((number, number), (1, number))
    assert seen() == (number, number)


def test_a_thread_born_meanwhile_inherits_nothing(number: int) -> None:
    assert on_one_thread(seen_by_a_new_thread) == on_one_thread(on_all_threads, seen_by_a_new_thread) == number

    def pooled() -> tuple[int, int]:
        stay_on_one_thread()
        return torch.get_num_threads(), seen_by_a_new_thread()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(pooled).result() == (1, number)
    assert seen_by_a_new_thread() == torch.get_num_threads() == number


def test_threads_born_while_towers_run(number: int) -> None:
    tower, stop = word_tower(), threading.Event()

    def encode() -> None:
        while not stop.is_set():
            tower.encode(ROWS)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(encode) for _ in range(2)]
        try:
            assert {seen_by_a_new_thread() for _ in range(200)} == {number}
        finally:
            stop.set()
        for one in running:
            one.result()


@pytest.mark.parametrize("held", [on_one_thread, lambda run: on_one_thread(on_all_threads, run)])
def test_threads_are_given_back_after_an_error(held: Any, number: int) -> None:
    def fails() -> None:
        raise InputError("x")

    with pytest.raises(InputError):
        held(fails)
    assert seen() == (number, number)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_child_of_the_importer_keeps_its_threads() -> None:
    code = (
        "import os, torch; torch.set_num_threads(3)\n"
        "from tests.torch_towers.towers import ROWS, word_tower\n"
        "word_tower().encode(ROWS)\n"
        "if os.fork(): os.wait()\n"
        "else: print(torch.get_num_threads(), len(word_tower().encode(ROWS)), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 4 3\n"
