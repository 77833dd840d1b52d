"""A moving average of the weights, which is validated and exported."""

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AverageWeights(WeightAveraging):
    """Lightning's weight averaging with a decay that grows with the number n of steps.

    It is min(decay, (1 + n) / (10 + n)), as in TensorFlow's `ExponentialMovingAverage`. With a
    constant one the first weights, which are random, keep a fraction of decay ** n: 59 % after 528
    steps with 0.999.

    Args:
        decay: Largest decay.
        device: Device of the average; Lightning 2.6 reads it from the network before that is on
            the GPU.
    """

    def __init__(self, decay: float, device: str) -> None:
        self._decay = decay
        super().__init__(device, avg_fn=self._average)

    def _average(self, averaged: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        decay = ((1 + steps) / (10 + steps)).clamp(max=self._decay)
        return averaged * decay + current * (1 - decay)
