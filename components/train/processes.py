"""The processes that train one model together.

`torchrun` starts them and tells each its place in variables of the environment
(https://docs.pytorch.org/docs/stable/elastic/run.html); without it there is one.
"""

import os
from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import is_torchelastic_launched

# a process whose peers vanished without a word waits so long for them
_PEER_TIMEOUT = timedelta(minutes=5)


def rank() -> int:
    """The number of this process in its training, from 0."""
    return int(os.environ["RANK"]) if is_torchelastic_launched() else 0


def is_writer() -> bool:
    """Whether this is the one process that writes to MLflow, the store and the outputs."""
    return rank() == 0


def trainer_arguments() -> dict[str, Any]:
    """What Lightning's `Trainer` must know: one device a process."""
    if not is_torchelastic_launched():
        return {"devices": 1}
    return {
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        "strategy": DDPStrategy(timeout=_PEER_TIMEOUT),
    }
