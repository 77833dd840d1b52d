"""Batch normalization over the batches of all processes."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from components.train.distributed.processes import count_processes, sum_over_processes

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def with_sync_batch_norm(module: ModuleT) -> ModuleT:
    """Returns a copy with torch's SyncBatchNorm, which runs on GPUs only.

    The names in its state stay, so the module itself, which is exported, can load that.
    """
    converted: ModuleT = convert_sync_batchnorm(copy.deepcopy(module))  # type: ignore[no-untyped-call]
    return converted


def batch_norm_over_processes(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Returns the context of a network's forward pass in training."""
    own = device.type == "cpu" and count_processes() > 1
    return CpuSyncBatchNorm() if own else contextlib.nullcontext()


class CpuSyncBatchNorm(TorchFunctionMode):
    """Context in which networks normalize by the batches of all processes, also on CPUs.

    All batches have the same size.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever the function returns
        """Calls what torch would call, except for batch normalization."""
        del types
        called = _batch_norm if func is functional.batch_norm else func
        return called(*args, **(kwargs or {}))


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Replaces `torch.nn.functional.batch_norm`; autograd sums gradients over the processes too."""
    if not training:
        return functional.batch_norm(images, running_mean, running_variance, weight, bias, eps=eps)
    channels_last = images.movedim(1, -1)
    values = channels_last.flatten(0, -2).float()  # torch sums 4 dimensions several times slower
    processes = count_processes()
    mean = (sum_over_processes(values.mean(0, dtype=torch.float64)) / processes).float()
    centered = values - mean
    variance = sum_over_processes(centered.square().mean(0)) / processes
    if running_mean is not None and running_variance is not None:
        count = len(values) * processes
        running_mean.lerp_(mean.detach(), momentum)
        running_variance.lerp_(variance.detach() * count / (count - 1), momentum)
    scale = torch.rsqrt(variance + eps) * (1 if weight is None else weight)
    normal = centered * scale + (0 if bias is None else bias)
    return normal.view_as(channels_last).movedim(-1, 1).to(images.dtype)
