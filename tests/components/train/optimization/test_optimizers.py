import pytest
import torch
from torch import nn

from components.train.optimization.optimizers import build_optimizer
from components.train.recipe import OptimizerSettings

RATE = 0.01


@pytest.fixture
def step():
    """How a step with each method moves a convolution of 16 channels and its normalization."""

    def move(method, **settings):
        torch.manual_seed(0)
        convolution, norm = nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16)
        weights = [convolution.weight, norm.weight]
        before = [weight.detach().clone() for weight in weights]
        options = OptimizerSettings(method=method, **{"weight_decay": 0, **settings})
        optimizer = build_optimizer(options, weights, [nn.Parameter(torch.zeros(1))])
        for group in optimizer.param_groups:
            group["lr"] = RATE
        images = torch.randn(4, 8, 12, 12)
        shares = torch.linspace(1, 2, 16)[:, None, None]
        norm(convolution(images)).exp().mul(shares).sum().backward()
        optimizer.step()
        return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]

    return move


def test_muon_moves_a_convolution_in_all_directions_alike(step):
    values = {
        method: torch.linalg.svdvals(step(method)[0].flatten(1)) for method in ("muon", "adamw")
    }
    assert values["muon"].max() < 1.2 * values["muon"].min()
    assert values["adamw"].max() > 2 * values["adamw"].min()


def test_a_rate_moves_weights_as_far_by_both_methods(step):
    """AdamW's first step is the rate; later ones are about a fifth of it (arXiv:2502.16982)."""
    moved = step("muon")[0]
    assert float(moved.pow(2).mean().sqrt()) == pytest.approx(0.2 * RATE, rel=0.1)


def test_muon_leaves_what_is_no_matrix_to_adamw(step):
    """With Nesterov's momentum: the first step is nearly twice as long."""
    assert torch.allclose(step("muon")[1], 1.9 * step("adamw")[1], rtol=1e-3)


@pytest.mark.parametrize("method", ["muon", "adamw"])
def test_weights_decay_by_both_methods(step, method):
    """By the rate times the decay, whatever the gradient says."""
    torch.manual_seed(0)
    before = nn.Conv2d(8, 16, 3, bias=False).weight.detach(), torch.ones(16)
    moved = zip(before, step(method), step(method, weight_decay=0.5), strict=True)
    for weight, without, decayed in moved:
        assert torch.allclose(without - decayed, weight * RATE * 0.5, atol=1e-6)
