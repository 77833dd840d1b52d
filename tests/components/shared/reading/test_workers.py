"""Worker processes that crash, hang, or need too much memory."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.reading import workers
from components.shared.reading.scans import BadScanError
from components.shared.reading.workers import Limits, Refused, run_in_workers

PROJECT = Path(workers.__file__).parents[3]
LIMITS = Limits(memory_bytes=300 * 2**20, cpu_s=1)


def act(item):
    """Does what the item names; other items come back with the process's number."""
    if item == "refuse":
        raise BadScanError("no scan")
    if item == "fail":
        raise UserError("the store is full")
    if item == "bug":
        raise KeyError("a bug")
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "exit":
        os._exit(3)
    if item == "memory":
        return bytes(400 * 2**20)
    while item == "loop":
        pass
    return os.getpid()


def outcomes(*items, count=1):
    return list(run_in_workers(act, items, count, LIMITS))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_item_has_one_result(count):
    results = outcomes(*range(20), count=count)
    assert sorted(item for item, _ in results) == list(range(20))
    processes = {process for _, process in results}
    assert len(processes) <= count
    assert os.getpid() not in processes
    assert not multiprocessing.active_children()


def test_a_machine_without_room_for_a_process_is_named(monkeypatch):
    def start(_):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.Process, "start", start)
    with pytest.raises(UserError, match="no process can be started to read volumes"):
        outcomes(1, 2, count=2)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("crash", "its process ended with SIGSEGV, most likely because of a hostile file"),
        ("killed", "its process was killed, most likely for want of memory; give each process"),
        ("exit", "its process ended with exit code 3"),
        ("memory", "it needs more memory than there is; give each process 0.29 GiB"),
        ("loop", "reading it takes more than 1 s of CPU time"),
    ],
)
def test_a_dead_worker_refuses_its_item_and_is_replaced(item, reason):
    (_, first), (_, refused), (_, second), (_, third) = outcomes(1, item, 2, 3)
    assert refused.reason.startswith(reason)
    assert first != second == third


def test_several_dead_workers_leave_the_others_alone():
    results = outcomes("crash", *range(10), "memory", "killed", *range(10, 20), count=3)
    assert {item for item, result in results if isinstance(result, Refused)} == {
        "crash",
        "memory",
        "killed",
    }
    assert len(results) == 23


def test_cpu_time_is_counted_for_each_item():
    def results(seconds):
        return list(run_in_workers(burn, [seconds] * 3, 1, LIMITS))

    assert not any(isinstance(result, Refused) for _, result in results(0.6))


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_refused_scan_has_its_reason_and_the_worker_lives_on():
    (_, first), (_, refused), (_, second) = outcomes(1, "refuse", 2)
    assert refused == Refused("no scan")
    assert first == second


@pytest.mark.parametrize(
    ("item", "kind", "text"),
    [("fail", UserError, "the store is full"), ("bug", KeyError, "a bug")],
)
def test_other_errors_come_through_with_their_traceback(item, kind, text):
    with pytest.raises(kind, match=text) as raised:
        outcomes(1, item, 2, count=2)
    assert "in act" in "".join(raised.value.__notes__)
    assert not multiprocessing.active_children()


def test_arrays_come_back_as_they_were():
    (_, (image, mask)) = next(run_in_workers(make_arrays, [3], 1))
    np.testing.assert_array_equal(image, np.arange(3))
    assert mask.flags.writeable
    assert mask.shape == (3, 1000)


def make_arrays(size):
    return np.arange(size), np.zeros((size, 1000), np.uint8)


def test_a_volume_is_not_copied_on_its_way():
    """An array of 200 MiB comes from a worker that may use 300 MiB."""
    ((_, array),) = run_in_workers(make_large, [200 * 2**20], 1, LIMITS)
    assert array.nbytes == 200 * 2**20


def make_large(size):
    return np.ones(size, np.uint8)


def test_items_are_taken_as_they_are_needed():
    taken = []
    items = (taken.append(number) or number for number in range(100))
    results = run_in_workers(act, items, 2, LIMITS)
    next(results)
    assert len(taken) == 3
    results.close()
    assert not multiprocessing.active_children()


def test_a_dead_parent_leaves_no_worker():
    code = (
        "import os, signal, time\n"
        "from components.shared.reading.workers import run_in_workers\n"
        "results = run_in_workers(time.sleep, [0, 0, 100, 100], 2)\n"
        "next(results), next(results)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, start_new_session=True, stderr=subprocess.PIPE
    )
    process.communicate(timeout=300)  # ends when the last process has closed the pipe
    assert process.returncode == -signal.SIGKILL
