"""Out-of-memory recovery: retry once with half the micro-batch."""

import ctypes
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from components.shared.errors import UserError
from components.train.checkpoints import Checkpoints
from components.train.distributed.processes import count_processes
from components.train.exit_codes import LOST_STATUS
from components.train.recipe import Sampling

logger = logging.getLogger(__name__)

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 2**30  # bytes: more than any array of a step on a CPU


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that a step frees, for the next one, if it can.

    By default it returns arrays of 32 MB and more to the system. The kernel then makes empty pages
    for them in each step, which takes a tenth of a step's time on a CPU. Peak memory is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # in glibc only
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def within_memory(
    train: Callable[[Sampling], T], sampling: Sampling, checkpoints: Checkpoints | None = None
) -> T:
    """Trains; if memory runs out, trains once more with micro-batches of half the size.

    The second try continues from the newest state. A later attempt at the same training run does
    so too, with the last size of the micro-batches. If several processes train, one that runs out
    of memory marks that for all and exits; all of them are then restarted.

    Raises:
        UserError: If memory runs out again, or if several processes train without checkpoints.
        SystemExit: With `LOST_STATUS`, if several processes train.
    """
    halved = checkpoints is not None and checkpoints.is_memory_short()
    used = _halved(sampling) if halved else sampling
    trained = _unless_out_of_memory(train, used)
    several, slices = count_processes() > 1, _slices_at_once(used)
    can_be_halved = slices % 2 == 0 and slices >= 4 and not halved
    if trained is None and can_be_halved and (checkpoints or not several):
        used = _halved(used)
        _warn(used, checkpoints)
        if checkpoints:
            checkpoints.mark_memory_short()
        if several:
            raise SystemExit(LOST_STATUS)
        trained = _unless_out_of_memory(train, used)
    if trained is None:
        raise UserError(_advice(used))
    return trained


def _unless_out_of_memory(train: Callable[[Sampling], T], sampling: Sampling) -> T | None:
    try:
        return train(sampling)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_oom_error(error):
            raise
        logger.info("%s", str(error).partition("\n")[0])
    garbage_collection_cuda()  # after the error and all that it referred to are gone
    return None


def _halved(sampling: Sampling) -> Sampling:
    return sampling.model_copy(update={"accumulate": 2 * sampling.accumulate})


def _slices_at_once(sampling: Sampling) -> int:
    return sampling.batch_size // (sampling.accumulate * count_processes())


def _warn(used: Sampling, checkpoints: Checkpoints | None) -> None:
    newest = checkpoints.newest() if checkpoints else None
    logger.warning(
        "out of memory with %d slices at once; continuing from %s with %d "
        "(train.sampling.accumulate=%d: a step still has %d)",
        2 * _slices_at_once(used),
        newest or "the start",
        _slices_at_once(used),
        used.accumulate,
        used.batch_size,
    )


def _advice(used: Sampling) -> str:
    return (
        f"out of memory with {_slices_at_once(used)} slices at once "
        f"(train.sampling.batch_size={used.batch_size}, accumulate={used.accumulate}); raise "
        "train.sampling.accumulate, which keeps the slices of a step, or lower "
        "train.sampling.batch_size or train.network.image_size, or give the step more memory"
    )
