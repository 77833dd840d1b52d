"""One round of a pod group: torchrun's agent, which starts the processes of this pod."""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from components.shared.process import MISTAKE_STATUS
from components.train.distributed.launch import LAUNCH_ID
from components.train.exit_codes import LOST_STATUS, PREEMPTED_STATUS

_RENDEZVOUS_S = 900  # until all pods have joined; those that wait longer start again


def run_agent(task: str) -> None:
    """Run torchrun's agent, which starts the processes of this pod and forwards signals.

    Raises:
        SystemExit: With the exit code of the process that failed first.
    """
    # the processes report themselves why they ended
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=int(os.environ["BRAINSEG_GROUP_PODS"]),
        max_nodes=int(os.environ["BRAINSEG_GROUP_PODS"]),
        nproc_per_node=int(os.environ["BRAINSEG_GROUP_PROCESSES"]),
        run_id=LAUNCH_ID,
        rdzv_backend="static",
        rdzv_endpoint=os.environ["BRAINSEG_GROUP_MASTER"],
        rdzv_configs={"rank": int(os.environ["JOB_COMPLETION_INDEX"]), "timeout": _RENDEZVOUS_S},
        max_restarts=0,  # the next round is another process
        shutdown_timeout=int(os.environ["BRAINSEG_GROUP_GRACE_S"]),  # then the pod is killed
    )
    try:
        elastic_launch(config, sys.executable)("-m", "components.train.group.member", task)
    except SignalException as error:
        raise SystemExit(PREEMPTED_STATUS) from error
    except ChildFailedError as error:
        codes = [_exit_code(failure.exitcode) for failure in error.failures.values()]
        mistake = MISTAKE_STATUS in codes
        raise SystemExit(MISTAKE_STATUS if mistake else codes[0]) from error
    except RuntimeError as error:  # the pods did not meet: torch.distributed.DistError and others
        sys.stderr.write(f"the pods of the group did not meet: {error}\n")
        raise SystemExit(LOST_STATUS) from error


def _exit_code(code: int) -> int:
    """The exit code that a shell reports; NCCL ends a process whose peers are lost by SIGABRT."""
    if code == -signal.SIGABRT:
        return LOST_STATUS
    return code if code >= 0 else 128 - code
