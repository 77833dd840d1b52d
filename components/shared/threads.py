"""How many threads torch computes with on the CPU."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping

import torch

from components.shared.machine import usable_cores

logger = logging.getLogger(__name__)

Work = Callable[[], object]

_TIMED_S = 0.2  # work that takes less is repeated for so long
_NO_USE = 1.5  # once so much slower than the fastest, still fewer threads cannot be faster
_EQUAL = 1.1  # a smaller gain may be chance, and is not worth more threads
_RECENT_STEPS = 5
_SLOW = 1.5  # times what steps have taken
_LEFT_OUT = 1.5  # a whole step at most, in rehearsed ones: there is more to it
_WORK_BETWEEN = 20.0  # times what a rehearsal takes: a twentieth of the time is spent so
_WORK_BEFORE_SLOW = 3.0  # the same, once steps have become slow: they may take many times as long


def limit_threads() -> int:
    """Keeps torch within the cores of this process; torch itself knows no quota.

    Returns:
        The number of threads: the usable cores, or fewer if `OMP_NUM_THREADS` says so.
    """
    threads = min(torch.get_num_threads(), usable_cores())
    torch.set_num_threads(threads)
    return threads


def time_threads(work: Work, most: int, *, warm: bool = False) -> dict[int, float]:
    """Does a piece of work with all threads, half of them, and so on down to one.

    Args:
        work: What to measure; it is done at least once with each number of threads.
        most: Threads to begin with.
        warm: Whether it was done before; if not, it is done once more with each number, as
            kernels are made for each, once.

    Returns:
        Seconds by number of threads; numbers too small to be the fastest are left out.
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
    """Does steps of some work with as many threads as are fastest at the time.

    Threads wait for each other many times in each operation of a network. If another process
    is on the core of one, all run at its pace, and fewer threads, or one alone, are faster. So
    a step is rehearsed at first, when steps have become slow, and now and then while fewer than
    all threads are used: the cores may be free again.

    Args:
        what: The work, for the log, e.g. `training`.
        most: Threads that there are.
        clock: Gives seconds.
    """

    def __init__(self, what: str, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = most
        self._what = what
        self._most = most
        self._clock = clock
        self._looked = 0.0  # when the last rehearsal ended
        self._took = 0.0  # how long it was
        self._usual: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def rehearse(self, rehearsal: Callable[[], Work]) -> None:
        """Sets torch's threads for a step; looks for the fastest number if it is time to.

        Args:
            rehearsal: Gives the work of a step; doing it must have no effect.
        """
        if self._is_due():
            self._choose(rehearsal())
        torch.set_num_threads(self.threads)

    def took(self, seconds: float) -> None:
        """Remembers how long a step took, for the question whether steps have become slow."""
        self._recent.append(seconds)
        if self._usual is not None and len(self._recent) == _RECENT_STEPS:
            self._usual = min(self._usual, statistics.median(self._recent))

    def _is_due(self) -> bool:
        if self._most == 1 or self._usual is None:
            return self._most > 1
        worked = self._clock() - self._looked
        if self._is_slow(self._usual):
            return worked >= _WORK_BEFORE_SLOW * self._took
        return self.threads < self._most and worked >= _WORK_BETWEEN * self._took

    def _is_slow(self, usual: float) -> bool:
        full = len(self._recent) == _RECENT_STEPS
        return full and statistics.median(self._recent) > _SLOW * usual

    def _choose(self, work: Work) -> None:
        started, before = self._clock(), self.threads
        seconds = time_threads(work, self._most, warm=self._usual is not None)
        self.threads = _fastest(seconds)
        if self._usual is None or self.threads != before:
            self._tell(seconds)
        self._usual = _LEFT_OUT * seconds[self.threads]
        self._recent.clear()
        self._looked = self._clock()
        self._took = self._looked - started

    def _tell(self, seconds: Mapping[int, float]) -> None:
        found = ", ".join(f"{1e3 * taken:.0f} with {count}" for count, taken in seconds.items())
        logger.info(
            "%s with %d of %d CPU threads (ms a step: %s)",
            self._what,
            self.threads,
            self._most,
            found,
        )


def _fastest(seconds: Mapping[int, float]) -> int:
    least = min(seconds.values())
    return min(threads for threads, taken in seconds.items() if taken <= _EQUAL * least)
