"""Processes that train one model together.

The agent of a pod group (`components.train.group.agent`) starts them as `torchrun` does and sets
each one's rank in environment variables (https://docs.pytorch.org/docs/stable/elastic/run.html).
Without it there is one, even if a batch system or a `torchrun` of somebody else has set variables
of that kind.
"""

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed

from components.train.distributed.launch import is_launched

# a process waits this long for peers that vanished without closing their connections
_PEER_TIMEOUT = timedelta(minutes=5)


def rank() -> int:
    """Returns the number of this process in its training, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def is_writer() -> bool:
    """Returns whether this process writes to MLflow, the store and the outputs."""
    return rank() == 0


def trainer_arguments() -> dict[str, Any]:
    """Returns arguments of Lightning's `Trainer`: one device per process."""
    if not is_launched():
        return {"devices": 1, "plugins": [_Alone()]}
    return {
        "plugins": [TorchElasticEnvironment()],
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        # running statistics need no broadcast: batch normalization keeps them equal
        "strategy": DDPStrategy(timeout=_PEER_TIMEOUT, forward_sync_buffers=False),
    }


class _Alone(LightningEnvironment):
    """Keeps Lightning from joining a job of Slurm, MPI or another launcher."""

    def local_rank(self) -> int:
        return 0


def count_processes() -> int:
    """Returns the number of processes; 1 before the process group exists."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """Sums a tensor over all processes, with gradients.

    The gradient is that of the sum of all processes' losses. A loss made from such sums is equal
    in all processes, and DDP's mean over the processes is its gradient.
    """
    if not distributed.is_initialized():
        return value
    total: Tensor = _Sum.apply(value)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: object, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
