"""The first process of a pod in a group: it starts the training, and starts it again.

It runs torchrun's agent in a process of its own for each time that the pods meet: the agent of
the first pod holds what they tell each other then, and it must not outlive it.
"""

import multiprocessing
import os
import signal
import sys
import time
from types import FrameType

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from components.shared.process import MISTAKE_STATUS
from components.train.processes import LOST_STATUS, PREEMPTED_STATUS

_MEETING_S = 900  # until all pods are there; those that wait longer begin again
_SHORT_S = 60.0
_SHORT_ROUNDS = 10  # so many in a row are no accident: the pod ends, and is counted


def main() -> None:
    """Trains with the group's other pods until the training is over or this pod is told to end.

    A round ends without a result where another pod vanished or was told to end. The next begins
    in this pod when the other one is replaced: a new pod would wait longer, as a Job replaces
    ended pods ever more slowly.

    Raises:
        SystemExit: With the training's status; with `PREEMPTED_STATUS` after SIGTERM.
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
    """Rounds of a training in this pod.

    Args:
        task: JSON of `Task`, for the processes that train.
    """

    def __init__(self, task: str) -> None:
        self.ended = False
        self._round = multiprocessing.get_context("spawn").Process(target=run_agent, args=(task,))
        self._task = task

    def train(self) -> int:
        """Does one round and returns its status."""
        spawning = multiprocessing.get_context("spawn")
        self._round = spawning.Process(target=run_agent, args=(self._task,))
        if self.ended:
            return PREEMPTED_STATUS
        self._round.start()
        if self.ended:  # by a signal in between
            self._round.terminate()
        self._round.join()
        return _status(self._round.exitcode or 0)

    def end(self, _: int, __: FrameType | None) -> None:
        """Hands SIGTERM on."""
        self.ended = True
        if self._round.pid is not None and self._round.exitcode is None:
            self._round.terminate()


def run_agent(task: str) -> None:
    """Runs torchrun's agent, which starts the processes of this pod and hands signals on.

    Raises:
        SystemExit: With the status of the process that failed first.
    """
    config = LaunchConfig(
        min_nodes=int(os.environ["BRAINSEG_GROUP_PODS"]),
        max_nodes=int(os.environ["BRAINSEG_GROUP_PODS"]),
        nproc_per_node=int(os.environ["BRAINSEG_GROUP_PROCESSES"]),
        run_id="brainseg",
        rdzv_backend="static",
        rdzv_endpoint=os.environ["BRAINSEG_GROUP_MASTER"],
        rdzv_configs={"rank": int(os.environ["JOB_COMPLETION_INDEX"]), "timeout": _MEETING_S},
        max_restarts=0,  # the next round is another process
    )
    try:
        elastic_launch(config, sys.executable)("-m", "components.train.group.member", task)
    except SignalException as error:
        raise SystemExit(PREEMPTED_STATUS) from error
    except ChildFailedError as error:
        statuses = [_status(failure.exitcode) for failure in error.failures.values()]
        mistake = MISTAKE_STATUS in statuses
        raise SystemExit(MISTAKE_STATUS if mistake else statuses[0]) from error
    except RuntimeError as error:  # the pods did not meet: torch.distributed.DistError and others
        sys.stderr.write(f"the pods of the group did not meet: {error}\n")
        raise SystemExit(LOST_STATUS) from error


def _status(code: int) -> int:
    """A process's status as a shell tells it; NCCL ends one whose peers are lost by SIGABRT."""
    if code == -signal.SIGABRT:
        return LOST_STATUS
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
