import math
import random
import signal

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from components.shared.errors import UserError
from components.shared.model.network import build_segmenter
from components.train import finder
from components.train.data.slices import prepare_volumes
from components.train.finder import (
    STEPS,
    LearningRateSweep,
    judge_sweep,
    search_learning_rate,
    search_once,
    with_found_rate,
)
from components.train.optimization.learning_rates import learning_rates

RATES = [10 ** (7 * step / (STEPS - 1) - 7) for step in range(STEPS)]


def noisy(loss, noise=0.02):
    generator = random.Random(0)
    return [loss(math.log10(rate)) + generator.gauss(0, noise) for rate in RATES]


def valley(exponent):
    """Flat up to 1e-5, falling to 1e-1, then rising steeply."""
    return 2 - 0.4 * min(max(exponent + 5, 0), 4) + 3 * max(exponent + 1, 0)


def test_the_known_valley_of_a_synthetic_loss_is_found():
    search = judge_sweep(RATES, noisy(valley))
    low, high = search.suggestion.valley
    assert 3e-7 < low < 5e-5
    assert 5e-2 < high < 3e-1
    assert 3e-4 < search.suggestion.learning_rate < 3e-3
    assert low < search.suggestion.steepest < high
    assert f"is {search.suggestion.learning_rate:.2g}" in search.reason
    assert f"rises from {low:.1g} to {high:.1g}" in search.reason


@pytest.mark.parametrize("decades", [-1, 1])
def test_the_suggestion_moves_with_the_valley(decades):
    found, moved = (
        judge_sweep(RATES, noisy(lambda exponent, by=by: valley(exponent - by))).suggestion
        for by in (0, decades)
    )
    ratio = moved.learning_rate / found.learning_rate
    assert ratio == pytest.approx(10**decades, rel=0.8)


@pytest.mark.parametrize("loss", [lambda _: 1.0, lambda exponent: 1 + max(exponent + 3, 0)])
def test_a_loss_that_never_falls_has_no_suggestion(loss):
    search = judge_sweep(RATES, noisy(loss))
    assert search.suggestion is None
    assert "the loss falls by no more than its noise" in search.reason


def test_what_is_behind_a_loss_that_is_no_number_is_left_out():
    losses = noisy(valley)
    search = judge_sweep(RATES, [*losses[:90], math.nan, *losses[91:]])
    assert len(search.losses) == len(search.smoothed) == len(search.learning_rates) == 90
    assert search.suggestion == judge_sweep(RATES[:90], losses[:90]).suggestion
    assert "NaN or infinite loss after 0 steps" in judge_sweep(RATES, [math.inf] * STEPS).reason


class Bowl(lightning.LightningModule):
    """A loss of known curvature: gradient descent diverges above a rate of 2 / curvature."""

    def __init__(self, curvature):
        super().__init__()
        self.curvature = curvature
        self.fast, self.slow = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.rates = []

    def training_step(self, _batch, _index):
        self.rates.append([group["lr"] for group in self.optimizers().param_groups])
        return self.curvature / 2 * (self.fast**2 + 0.01 * self.slow**2)

    def configure_optimizers(self):
        groups = [{"params": [self.slow], "lr": 0.05}, {"params": [self.fast], "lr": 0.5}]
        optimizer = torch.optim.SGD(groups)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def descend(bowl, sweep, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        callbacks=[sweep],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_steps": STEPS, **options},
    )
    trainer.fit(bowl, DataLoader(torch.zeros(7, 1)))
    return bowl, sweep


def test_a_sweep_stops_where_the_loss_diverges():
    _, sweep = descend(Bowl(1000.0), LearningRateSweep())
    found = judge_sweep(sweep.learning_rates, sweep.losses).suggestion
    assert len(sweep.losses) < STEPS
    # when steps grow again the weights are so small that it takes a few until the loss does
    assert 2 / 1000 < found.valley[1] < 20 / 1000
    assert found.learning_rate < 2 / 1000


def test_groups_of_parameters_keep_the_relation_of_their_rates():
    bowl, sweep = descend(Bowl(0.5), LearningRateSweep())
    slow, fast = zip(*bowl.rates, strict=True)
    assert list(fast) == sweep.learning_rates
    assert fast[0] == pytest.approx(1e-7)
    assert fast[-1] == pytest.approx(1.0)
    assert [rate * 10 for rate in slow] == pytest.approx(fast)


def test_a_step_of_several_batches_has_one_rate_and_one_loss():
    bowl, sweep = descend(Bowl(0.5), LearningRateSweep(), accumulate_grad_batches=3)
    assert len(sweep.losses) == len(sweep.learning_rates) == STEPS
    rates = [fast for _, fast in bowl.rates]
    alone = descend(Bowl(0.5), LearningRateSweep())[1]
    assert sweep.losses[0] == pytest.approx(alone.losses[0])  # no weight has moved
    # seven batches an epoch: the last step of each has one
    assert rates[:7] == [rate for rate in sweep.learning_rates[:3] for _ in range(3)][:7]


def test_sigterm_ends_a_sweep_as_it_ends_any_process():
    """Lightning's handler would end it with status 0, as if it had trained."""
    seen = []

    class Watch(LearningRateSweep):
        def on_train_batch_start(self, trainer, *arguments):
            seen.append(signal.getsignal(signal.SIGTERM))
            super().on_train_batch_start(trainer, *arguments)

    before = signal.getsignal(signal.SIGTERM)
    descend(Bowl(1.0), Watch(), max_steps=1)
    assert seen == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def quick_sweep(monkeypatch):
    monkeypatch.setattr(finder, "STEPS", 30)
    monkeypatch.setattr(finder, "_BEGINNING", 3)


def test_a_search_leaves_segmenter_chance_and_folder_as_they_are(
    recipe, dataset, quick_sweep, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    segmenter = build_segmenter(recipe.network)
    volumes = prepare_volumes(dataset, "train", segmenter)
    weights = {name: value.clone() for name, value in segmenter.state_dict().items()}
    files, state = sorted(tmp_path.iterdir()), torch.get_rng_state()
    search = search_learning_rate(recipe, segmenter, volumes)
    assert search.suggestion
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(tmp_path.iterdir()) == files
    for name, value in segmenter.state_dict().items():
        assert torch.equal(value, weights[name])
    assert search_learning_rate(recipe, segmenter, volumes) == search


FOUND = judge_sweep(RATES, noisy(valley))


def test_another_attempt_takes_what_the_first_one_found(store):
    searches = []

    def search():
        searches.append(1)
        return FOUND

    assert search_once(store, "checkpoints/a", search) == FOUND
    assert search_once(store, "checkpoints/a", search) == FOUND
    assert len(searches) == 1
    search_once(store, "checkpoints/b", search)
    assert len(searches) == 2


def test_a_damaged_result_is_searched_again(store, caplog):
    store.write("a/learning_rate_search.json", b"{")
    assert search_once(store, "a", lambda: FOUND) == FOUND
    assert "is damaged; searching again" in caplog.text
    assert search_once(store, "a", None) == FOUND


def test_only_the_learning_rate_of_the_recipe_changes(make_recipe):
    recipe = make_recipe(optimizer={"find_learning_rate": True})
    found = with_found_rate(recipe, FOUND)
    rate = FOUND.suggestion.learning_rate
    assert found == make_recipe(optimizer={"find_learning_rate": True, "learning_rate": rate})


def test_the_first_phase_peaks_at_the_rate_that_was_found(make_recipe):
    phases = ({"lr_factor": 0.25}, {})
    found = with_found_rate(make_recipe(schedule={"phases": phases}), FOUND)
    points = learning_rates(found.schedule, found.optimizer, 400)
    peak = max(point.rest for point in points[:200])
    assert peak == pytest.approx(FOUND.suggestion.learning_rate)


def test_a_training_does_not_begin_where_no_rate_is_found(recipe):
    with pytest.raises(UserError, match=r"learning_rate=0\.001 by .*find_learning_rate=false"):
        with_found_rate(recipe, judge_sweep(RATES, noisy(lambda _: 1.0)))
