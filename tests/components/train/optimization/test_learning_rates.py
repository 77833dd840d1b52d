import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from components.shared.config import parse_config
from components.shared.errors import UserError
from components.train.optimization.learning_rates import FollowPoints, learning_rates
from components.train.recipe import OptimizerSettings, Phase, Recipe, Schedule


def test_one_phase_is_the_library_s_one_cycle_bit_for_bit():
    """What a training without phases has always followed."""
    points = learning_rates(Schedule(epochs=5), OptimizerSettings(learning_rate=2e-3), steps=35)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=35, pct_start=0.2
    )
    for point in points:
        group = optimizer.param_groups[0]
        assert (point.rest, point.momentum) == (group["lr"], group["betas"][0])
        optimizer.step()
        if point is not points[-1]:
            scheduler.step()


@pytest.mark.parametrize("steps", [2, 3, 35, 528])
def test_cosine_is_the_library_s_after_a_warm_up_bit_for_bit(steps):
    points = _points_of("cosine", steps=steps)
    trial = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    warm = min(max(1, round(0.2 * steps)), steps - 1)
    rising = LinearLR(trial, start_factor=1 / 25, total_iters=warm)
    falling = CosineAnnealingLR(trial, T_max=steps - warm)
    scheduler = SequentialLR(trial, [rising, falling], milestones=[warm])
    for point in points:
        assert (point.rest, point.momentum) == (trial.param_groups[0]["lr"], None)
        trial.step()
        scheduler.step()


def _points_of(text, steps=100):
    recipe = parse_config(Recipe, f"schedule: {{epochs: 1, lr_schedule: {text}}}", "train")
    return learning_rates(recipe.schedule, recipe.optimizer, steps)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PolynomialLR", {0: 1e-3 / 25, 20: 1e-3, 60: 5e-4, 99: 1e-3 / 80}),
        ("{name: PolynomialLR, power: 2}", {20: 1e-3, 60: 2.5e-4}),
        ("PolynomialLR, warmup_fraction: 0", {0: 1e-3, 50: 5e-4}),
        ("{name: StepLR, step_size: 40}", {19: 1e-3 * (1 - 0.96 / 20), 20: 1e-3, 60: 1e-4}),
        ("{name: cosine, eta_min: 1e-4}", {20: 1e-3, 60: 5.5e-4}),
        ("'torch.optim.lr_scheduler:CosineAnnealingLR'", {20: 1e-3, 60: 5e-4}),
        ("{name: one_cycle, div_factor: 10}", {0: 1e-4}),
        ("OneCycleLR, warmup_fraction: 0", {0: 1e-3 / 25}),
    ],
)
def test_a_schedule_of_the_library_by_its_name(text, expected):
    points = _points_of(text)
    assert len(points) == 100
    found = {step: points[step].rest for step in expected}
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_schedule_moves_the_momentum_only_if_it_does_so_in_the_library():
    assert {point.momentum for point in _points_of("PolynomialLR")} == {None}
    assert len({point.momentum for point in _points_of("OneCycleLR")}) > 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ReduceLROnPlateau", "ReduceLROnPlateau needs a validation score; a schedule depends on"),
        ("LambdaLR", "LambdaLR is not known; there are one_cycle, cosine, StepLR, "),
        ("Polynomial", r"Polynomial is not known \(nearest: PolynomialLR\)"),
        ("{name: PolynomialLR, pwoer: 2}", r"does not accept pwoer \(nearest: power\); its opt"),
        ("StepLR", "StepLR with {}: .*missing 1 required positional argument: 'step_size'"),
        ("{name: OneCycleLR, total_steps: 5}", "OneCycleLR cannot be stepped once .*: Tried to"),
        ("{name: one_cycle, max_lr: 1}", "one_cycle: max_lr is no option; the training sets it"),
        ("'torch.optim:SGD'", "SGD is not a subclass of torch.optim.lr_scheduler.LRScheduler"),
    ],
)
def test_a_wrong_schedule_is_refused(text, message):
    with pytest.raises(UserError, match=r"^train\.schedule\.lr_schedule=.*" + message):
        _points_of(text)


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [
        (torch.optim.SGD, "momentum"),
        (torch.optim.RMSprop, "momentum"),
        (torch.optim.Adam, "betas"),
        (torch.optim.Adagrad, None),
    ],
)
def test_one_cycle_moves_the_momentum_that_an_optimizer_has(optimizer, key):
    points = learning_rates(Schedule(epochs=1), OptimizerSettings(), steps=10)
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    made = optimizer([{"params": [weight]} for weight in weights])
    schedule = FollowPoints(made, points)
    for point in points:
        group = made.param_groups[1]
        momentum = {"momentum": lambda g: g["momentum"], "betas": lambda g: g["betas"][0]}
        assert group["lr"] == point.encoder
        assert key is None or momentum[key](group) == point.momentum
        made.step()
        schedule.step()


def test_every_phase_has_its_own_peak_and_factor():
    schedule = Schedule(
        epochs=8,
        phases=(Phase(), Phase(length=3, lr_factor=0.1, encoder_factor=0.01)),
        lr_schedule="cosine",
    )
    points = learning_rates(
        schedule, OptimizerSettings(learning_rate=1e-2, encoder_factor=0.5), steps=80
    )
    first, second = points[:20], points[20:]
    assert max(point.rest for point in first) == pytest.approx(1e-2)
    assert max(point.rest for point in second) == pytest.approx(1e-3)
    assert all(point.encoder == point.rest * 0.5 for point in first)
    assert all(point.encoder == point.rest * 0.01 for point in second)
    assert second[0].rest == pytest.approx(1e-3 / 25)
    assert second[-1].rest < 1e-5


@pytest.mark.parametrize("lr_schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_there_is_a_point_for_every_step_however_few(lr_schedule, steps):
    points = learning_rates(
        Schedule(epochs=1, lr_schedule=lr_schedule), OptimizerSettings(), steps=steps
    )
    assert len(points) == steps
    assert all(0 < point.rest <= 1e-3 for point in points)


def test_a_warm_up_of_one_step_is_its_peak():
    """torch's one-cycle divides by zero there."""
    first, *others = learning_rates(
        Schedule(epochs=1, warmup_fraction=0.25), OptimizerSettings(), steps=4
    )
    assert first.rest == pytest.approx(1e-3, rel=1e-3)
    assert all(point.rest < first.rest for point in others)


def test_a_resumed_schedule_goes_on_where_it_stood():
    points = learning_rates(Schedule(epochs=1), OptimizerSettings(encoder_factor=0.5), steps=10)
    optimizer, schedule = _followed(points)
    seen = [_run(optimizer, schedule) for _ in range(5)]
    resumed, resumed_schedule = _followed(points)
    resumed.load_state_dict(optimizer.state_dict())
    resumed_schedule.load_state_dict(schedule.state_dict())
    seen += [_run(resumed, resumed_schedule) for _ in range(5)]
    assert seen == [(point.rest, point.encoder, point.momentum) for point in points]


def _followed(points):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights])
    return optimizer, FollowPoints(optimizer, points)


def _run(optimizer, schedule):
    rest, encoder = optimizer.param_groups
    point = rest["lr"], encoder["lr"], encoder["betas"][0]
    optimizer.step()
    schedule.step()
    return point
