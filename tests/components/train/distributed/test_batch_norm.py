import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from components.train.distributed import batch_norm
from components.train.distributed.batch_norm import SynchronisedBatchNorm


@pytest.fixture
def twins(monkeypatch):
    """Two processes that have equal batches: each sum is twice its own."""
    monkeypatch.setattr(batch_norm, "count_processes", lambda: 2)
    monkeypatch.setattr(batch_norm, "sum_over_processes", lambda value: 2 * value)


def _network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), norm(5), nn.Conv2d(5, 2, 1))


def _images():
    torch.manual_seed(1)
    # their mean is large: a variance as the difference of two sums would be wrong
    return 1000 + torch.randn(4, 3, 9, 9)


def _train(network, images, *, synchronised):
    """Gradients and state after a forward and a backward pass."""
    if synchronised:
        with SynchronisedBatchNorm():
            output = network(images)
    else:
        output = network(images)
    (
        output * torch.linspace(-1, 1, output[0].numel()).view(output[0].shape)
    ).square().mean().backward()
    gradients = {f"gradient of {name}": each.grad for name, each in network.named_parameters()}
    return {"output": output.detach(), **gradients, **network.state_dict()}


def _assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.is_floating_point() or torch.equal(value, other[name])
        torch.testing.assert_close(other[name], value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, timm.layers.BatchNormAct2d])
def test_a_process_alone_normalises_as_torch_does(norm):
    plain = _train(_network(norm), _images(), synchronised=False)
    _assert_equal(plain, _train(_network(norm), _images(), synchronised=True))


def test_processes_normalise_as_one_that_has_all_their_batches(twins):
    twice = torch.cat([_images(), _images()])
    whole = _train(_network(nn.BatchNorm2d), twice, synchronised=False)
    half = _train(_network(nn.BatchNorm2d), _images(), synchronised=True)
    whole["output"] = whole["output"][:4]
    _assert_equal(whole, half)


def test_half_precision_is_normalised_in_single_precision():
    torch.manual_seed(0)
    images = (3 + torch.randn(8, 4, 16, 16)).bfloat16()
    norm = nn.BatchNorm2d(4)
    with SynchronisedBatchNorm():
        normal = norm(images)
    assert normal.dtype == torch.bfloat16
    expected = functional.batch_norm(images.float(), None, None, training=True)
    torch.testing.assert_close(normal.float(), expected, rtol=0, atol=0.02)


def test_a_network_that_does_not_train_is_left_alone():
    network = _network(nn.BatchNorm2d).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    plain = network(_images())
    with SynchronisedBatchNorm():
        assert torch.equal(network(_images()), plain)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
