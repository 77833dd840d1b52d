"""Number of threads that torch uses on the CPU."""

import logging
import time
from collections.abc import Callable, Mapping

import torch

from components.shared.machine import usable_cores

logger = logging.getLogger(__name__)

Work = Callable[[], object]

_TIMED_S = 0.2  # shorter work is repeated for this long
_NO_USE = 1.5  # once this much slower than the fastest, still fewer threads cannot be faster
_EQUAL = 1.1  # a smaller gain may be chance, and is not worth more threads
_WORK_BETWEEN = 40.0  # times a rehearsal's duration: rehearsals take a fortieth of the time


def limit_threads() -> int:
    """Limits torch to the cores of this process; torch itself ignores a container's quota.

    Returns:
        Number of threads: the usable cores, or fewer if `OMP_NUM_THREADS` says so.
    """
    threads = min(torch.get_num_threads(), usable_cores())
    torch.set_num_threads(threads)
    return threads


def time_threads(work: Work, most: int, *, warm: bool = False) -> dict[int, float]:
    """Times a piece of work with all threads, half of them, and so on down to one.

    Args:
        work: Work to time, done at least once with each number of threads.
        most: Largest number of threads.
        warm: True if it was done before; otherwise it is done once more with each number, as
            kernels are created for each of them.

    Returns:
        Seconds by number of threads, without numbers that are too small to be the fastest.
    """
    before = torch.get_num_threads()
    seconds: dict[int, float] = {}
    try:
        for threads in (most >> halvings for halvings in range(most.bit_length())):
            torch.set_num_threads(threads)
            if not warm:
                work()
            seconds[threads] = _time(work)
            if seconds[threads] > _NO_USE * min(seconds.values()):
                break
    finally:
        torch.set_num_threads(before)
    return seconds


def _time(work: Work) -> float:
    started, times, spent = time.perf_counter(), 0, 0.0
    while spent < _TIMED_S:
        work()
        times, spent = times + 1, time.perf_counter() - started
    return spent / times


class FastestThreads:
    """Chooses the fastest number of threads for the steps of some work.

    Threads wait for each other many times in each operation of a network. If another process
    uses the core of one thread, all run at its pace, and fewer threads are faster. As such
    processes come and go, a step is rehearsed at first and from time to time.

    Args:
        what: Name of the work in the log, e.g. `training`.
        most: Number of threads available.
        clock: Function that returns seconds.
    """

    def __init__(self, what: str, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = most
        self._what = what
        self._most = most
        self._clock = clock
        self._due: float | None = None  # time of the next rehearsal; `None` before the first

    def rehearse(self, rehearsal: Callable[[], Work]) -> None:
        """Sets torch's threads for a step, after a rehearsal if one is due.

        Args:
            rehearsal: Function that returns the work of a step; doing it must have no effect.
        """
        if self._most > 1 and (self._due is None or self._clock() >= self._due):
            self._choose(rehearsal())
        torch.set_num_threads(self.threads)

    def _choose(self, work: Work) -> None:
        started, before, is_first = self._clock(), self.threads, self._due is None
        seconds = time_threads(work, self._most, warm=not is_first)
        self.threads = _fastest(seconds)
        if is_first or self.threads != before:
            self._log(seconds)
        ended = self._clock()
        once = (ended - started) / (2 if is_first else 1)  # the first is done twice
        self._due = ended + _WORK_BETWEEN * once

    def _log(self, seconds: Mapping[int, float]) -> None:
        found = ", ".join(f"{1e3 * taken:.0f} with {count}" for count, taken in seconds.items())
        form = "%s with %d of %d CPU threads (ms a step: %s)"
        logger.info(form, self._what, self.threads, self._most, found)


def _fastest(seconds: Mapping[int, float]) -> int:
    least = min(seconds.values())
    return min(threads for threads, taken in seconds.items() if taken <= _EQUAL * least)
