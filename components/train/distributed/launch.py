"""Mark of the processes that the agent of a pod group started; needs no torch."""

import os

LAUNCH_ID = "brainseg"  # run id of the agent's launches


def is_launched() -> bool:
    """Returns whether the agent started this process, and not another program's `torchrun`."""
    return os.environ.get("TORCHELASTIC_RUN_ID") == LAUNCH_ID
