"""One meeting of a group's pods: torchrun's agent, which starts the processes of this pod."""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from components.shared.process import MISTAKE_STATUS
from components.train.exit_codes import LOST_STATUS, PREEMPTED_STATUS

_MEETING_S = 900  # until all pods are there; those that wait longer begin again


def run_agent(task: str) -> None:
    """Runs torchrun's agent, which starts the processes of this pod and hands signals on.

    Raises:
        SystemExit: With the status of the process that failed first.
    """
    # the processes tell themselves why they ended
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=int(os.environ["BRAINSEG_GROUP_PODS"]),
        max_nodes=int(os.environ["BRAINSEG_GROUP_PODS"]),
        nproc_per_node=int(os.environ["BRAINSEG_GROUP_PROCESSES"]),
        run_id="brainseg",
        rdzv_backend="static",
        rdzv_endpoint=os.environ["BRAINSEG_GROUP_MASTER"],
        rdzv_configs={"rank": int(os.environ["JOB_COMPLETION_INDEX"]), "timeout": _MEETING_S},
        max_restarts=0,  # the next round is another process
        shutdown_timeout=int(os.environ["BRAINSEG_GROUP_GRACE_S"]),  # then the pod is killed
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
