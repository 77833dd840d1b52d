"""Batch normalization over the batches of all processes that train together."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from components.train.distributed.processes import count_processes, sum_over_processes


class SynchronisedBatchNorm(TorchFunctionMode):
    """Where it is entered, networks in training normalise by the batches of all processes.

    `torch.nn.SyncBatchNorm` refuses the CPU, and it takes the place of modules: names change,
    and what a module does beside (timm's `BatchNormAct2d`) is lost. Here the network stays as
    it is, and its running statistics are equal in all processes. All batches have one size.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever the function gives
        """Calls what torch would call, but for the batch normalization."""
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
    """As `torch.nn.functional.batch_norm`."""
    if not training:
        return functional.batch_norm(images, running_mean, running_variance, weight, bias, eps=eps)
    mean, variance, count = _moments(images.detach())
    if running_mean is not None and running_variance is not None:
        running_mean.lerp_(mean, momentum)
        running_variance.lerp_(variance * count / (count - 1), momentum)
    weight = torch.ones_like(mean) if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias
    normal: Tensor = _Normalise.apply(images, weight, bias, mean, variance, count, eps)
    return normal


def _moments(images: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each channel in all processes, and of how many values they are."""
    variance, mean = torch.var_mean(images.float(), dim=_all_but_channels(images), correction=0)
    mean, variance = mean.double(), variance.double()  # a mean's square may be far larger
    processes = count_processes()
    moments = sum_over_processes(torch.stack([mean, variance + mean**2])) / processes
    mean, variance = moments[0], moments[1] - moments[0] ** 2
    return mean.float(), variance.float(), images.numel() // images.shape[1] * processes


class _Normalise(torch.autograd.Function):
    """Scales and shifts by statistics that depend on the images of all processes.

    The gradient is that of Ioffe and Szegedy 2015 (arXiv:1502.03167, section 3), its sums over
    the batches of all processes; weight and bias get the share of the own batch, as other
    parameters do.
    """

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401  # torch names no type for it
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: int,
        eps: float,
    ) -> Tensor:
        context.save_for_backward(images, weight, mean, torch.rsqrt(variance + eps))
        context.count = count
        return functional.batch_norm(images, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        images, weight, mean, scale = context.saved_tensors
        dims = _all_but_channels(images)
        shape = [1, -1, *[1] * (images.dim() - 2)]
        normal = (images - mean.view(shape)) * scale.view(shape)
        of_bias, of_weight = gradient.float().sum(dims), (gradient * normal).sum(dims)
        shift, slope = sum_over_processes(torch.stack([of_bias, of_weight])) / context.count
        centred = gradient - shift.view(shape) - normal * slope.view(shape)
        of_images = centred * (weight * scale).view(shape)
        return of_images.to(images.dtype), of_weight, of_bias, None, None, None, None


def _all_but_channels(images: Tensor) -> list[int]:
    return [dim for dim in range(images.dim()) if dim != 1]
