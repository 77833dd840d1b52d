import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from components.train.callbacks.weight_averaging import AverageWeights


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_a_short_training_forgets_its_first_weights(decay):
    """With a constant decay of 0.999 they kept nine tenths after a hundred steps."""
    model = nn.BatchNorm1d(2)
    average = AveragedModel(model, **AverageWeights(decay, "cpu")._kwargs, use_buffers=True)
    with torch.no_grad():
        for step in range(101):
            model.weight.fill_(step > 0)
            model.num_batches_tracked.fill_(step)
            average.update_parameters(model)
    assert average.module.weight.min() > 0.99999
    assert 0 < average.module.num_batches_tracked <= 100


def test_later_the_decay_is_the_one_asked_for():
    average = AverageWeights(0.9, "cpu")._average
    one, zero = torch.ones(1), torch.zeros(1)
    assert average(one, zero, torch.tensor(1)) == pytest.approx(2 / 11)
    assert average(one, zero, torch.tensor(500)) == pytest.approx(0.9)
