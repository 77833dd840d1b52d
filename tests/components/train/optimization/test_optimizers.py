import pytest
import torch
from timm.optim import muon
from torch import nn

from components.shared.config import parse_config
from components.shared.errors import UserError
from components.train.optimization import optimizers
from components.train.optimization.optimizers import build_optimizer
from components.train.recipe import OptimizerSettings, Recipe

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
        factors = torch.linspace(1, 2, 16)[:, None, None]
        norm(convolution(images)).exp().mul(factors).sum().backward()
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


@pytest.mark.parametrize("fast", [False, True])
def test_muon_computes_in_float32_where_the_cpu_is_slower_in_bfloat16(step, monkeypatch, fast):
    monkeypatch.setattr(optimizers, "has_fast_bf16", lambda: fast)
    seen = []
    function = muon.zeropower_via_newtonschulz

    def look(*arguments, **options):
        seen.append(function(*arguments, **options).dtype)
        return function(*arguments, **options)

    monkeypatch.setattr(muon, "zeropower_via_newtonschulz", look)
    step("muon")
    assert seen == [torch.bfloat16 if fast else torch.float32]
    assert muon.zeropower_via_newtonschulz is look


def _build(text):
    settings = parse_config(Recipe, f"optimizer: {{{text}}}", "train").optimizer
    return build_optimizer(settings, *([nn.Parameter(torch.zeros(2))] for _ in range(2)))


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("method: adamw", "AdamW", {"betas": (0.9, 0.999), "fused": True, "weight_decay": 0.01}),
        ("method: adamw, gradient_clip: 1", "AdamW", {"betas": (0.9, 0.999), "fused": False}),
        ("method: {name: adamw, betas: [0.8, 0.99]}", "AdamW", {"betas": (0.8, 0.99)}),
        ("method: muon", "Muon", {"nesterov": True, "betas": (0.9, 0.95), "weight_decay": 0.01}),
        ("method: {name: muon, momentum: 0.9}", "Muon", {"nesterov": True, "momentum": 0.9}),
        ("method: {name: SGD, momentum: 0.9}, weight_decay: 1e-4", "SGD", {"momentum": 0.9}),
        ("method: Rprop, weight_decay: 0", "Rprop", {"etas": (0.5, 1.2)}),
        ("method: lion", "Lion", {"weight_decay": 0.01}),
        ("method: 'torch.optim:Adagrad', learning_rate: 0.3", "Adagrad", {"lr": 0.3}),
    ],
)
def test_an_optimizer_is_built_by_its_name(text, kind, expected):
    optimizer = _build(text)
    assert kind in {base.__name__ for base in type(optimizer).__mro__}
    assert len(optimizer.param_groups) == 2
    for group in optimizer.param_groups:
        assert {key: group[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "method: Adm",
            r"method=Adm is not known \(nearest: Adam, .*\); there are adamw, muon,",
        ),
        (
            "method: {name: SGD, momentun: 0.9}",
            r"method=SGD does not accept momentun \(nearest: momentum\); its options: momentum, ",
        ),
        ("method: {name: SGD, lr: 1}", "method=SGD: lr is no option; the training sets it"),
        ("method: {name: SGD, weight_decay: 1}", "weight_decay is no option; the training sets"),
        ("method: {name: SGD, momentum: -1}", "Invalid momentum value: -1"),
        ("method: Rprop", r"Rprop has no weight decay; set train\.optimizer\.weight_decay=0$"),
        ("method: LBFGS, weight_decay: 0", "LBFGS with {}: LBFGS doesn't support per-parameter"),
        ("method: SparseAdam, weight_decay: 0", "SparseAdam fails on a small network: .*dense"),
        ("method: Muon", "Muon only supports 2D"),  # timm's is `muon`
        (
            "method: {name: AdamW, fused: true}, gradient_clip: 1",
            r"fused=true cannot be combined with train\.optimizer\.gradient_clip$",
        ),
        ("method: 'torch.nn:Linear'", "Linear is not a subclass of torch.optim.optimizer.Optim"),
    ],
)
def test_a_wrong_optimizer_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        _build(text)
