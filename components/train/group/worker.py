"""The first process of a group's pod: it starts rounds of the training.

Each round runs torchrun's agent in a new process. The agent of the first pod holds the store of the
rendezvous, which must not outlive the round.
"""

import multiprocessing
import signal
import sys
import time
from multiprocessing.context import SpawnProcess
from types import FrameType

from components.train.exit_codes import LOST_STATUS, PREEMPTED_STATUS

_SHORT_S = 60.0
_SHORT_ROUNDS = 10  # in a row they are no accident: the pod fails, which Kubernetes counts


def main() -> None:
    """Train with the group's other pods until the training ends or this pod is terminated.

    A round ends without a result if another pod vanished or was terminated. The next round starts
    in this pod when the other one is replaced. A new pod would wait longer, as a Job replaces ended
    pods ever more slowly.

    Raises:
        SystemExit: With the training's exit code; with `PREEMPTED_STATUS` after SIGTERM.
    """
    worker = Worker(sys.argv[1])
    signal.signal(signal.SIGTERM, worker.end)
    short = 0
    while short < _SHORT_ROUNDS:
        started = time.monotonic()
        status = worker.train()
        if worker.ended:
            raise SystemExit(PREEMPTED_STATUS)
        if status not in (LOST_STATUS, PREEMPTED_STATUS):
            raise SystemExit(status)
        short = short + 1 if time.monotonic() - started < _SHORT_S else 0
    raise SystemExit(1)


class Worker:
    """Rounds of the training in this pod."""

    def __init__(self, task: str) -> None:
        self.ended = False
        self._task = task
        self._round = self._agent()

    def train(self) -> int:
        """Run one round and return its exit code."""
        self._round = self._agent()
        if self.ended:
            return PREEMPTED_STATUS
        self._round.start()
        if self.ended:  # by a signal in between
            self._round.terminate()
        self._round.join()
        status = self._round.exitcode or 0
        return status if status >= 0 else 128 - status

    def end(self, _: int, __: FrameType | None) -> None:
        """Forward SIGTERM."""
        self.ended = True
        if self._round.pid is not None:
            self._round.terminate()

    def _agent(self) -> SpawnProcess:
        return multiprocessing.get_context("spawn").Process(target=_run_round, args=(self._task,))


def _run_round(task: str) -> None:
    from components.train.group.agent import run_agent  # torch is large; the first process waits

    run_agent(task)


if __name__ == "__main__":
    main()
