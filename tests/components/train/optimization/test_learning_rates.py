import pytest
import torch

from components.train.optimization.learning_rates import FollowPoints, learning_rates
from components.train.recipe import OptimizerSettings, Phase, Schedule


def test_one_phase_is_the_library_s_one_cycle_bit_for_bit():
    """What a training without phases has always followed."""
    points = learning_rates(Schedule(epochs=5), OptimizerSettings(learning_rate=2e-3), steps=35)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=35, pct_start=0.2
    )
    for point in points:
        group = optimizer.param_groups[0]
        assert (point.rest, point.beta) == (group["lr"], group["betas"][0])
        optimizer.step()
        if point is not points[-1]:
            scheduler.step()


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
    assert seen == [(point.rest, point.encoder, point.beta) for point in points]


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
