import os
import signal

import pytest
from lightning.pytorch.callbacks import Callback

from components.train.callbacks import interruption
from components.train.statuses import PREEMPTED_STATUS
from tests.components.train.conftest import Interruption, assert_same_fit


class SignalAt(Callback):
    """Sends this process SIGTERM after some step."""

    def __init__(self, step):
        self._step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)


class FailAt(Callback):
    """Fails in some step."""

    def __init__(self, step):
        self._step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self._step:
            raise Interruption


class Steps(Callback):
    """Tells which steps were done."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append(trainer.global_step)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_told_to_end_loses_nothing(train, make_recipe, caplog, workers):
    """Within the first epoch, which has no best weights yet, and within a later one."""
    compute = {"precision": "32-true", "device": "cpu", "loader_workers": workers}
    recipe = make_recipe(schedule={"epochs": 4}, compute=compute)
    whole = train(recipe, "whole")
    caplog.set_level("INFO")
    for step in (1, 9):
        with pytest.raises(SystemExit) as ended:
            train(recipe, "cut", callbacks=[SignalAt(step)])
        assert ended.value.code == PREEMPTED_STATUS
        assert f"the state after step {step} is stored" in caplog.text
    steps = Steps()
    resumed = train(recipe, "cut", callbacks=[steps])
    assert steps.seen[0] == 10
    assert_same_fit(whole, resumed)


def test_after_the_last_step_of_an_epoch_its_validation_comes_first(train, recipe, caplog):
    whole = train(recipe, "whole")
    steps = Steps()
    train(recipe, "steps", callbacks=[steps])
    last = len(steps.seen) // recipe.schedule.epochs
    with pytest.raises(SystemExit):
        train(recipe, "cut", callbacks=[SignalAt(last)])
    assert f"the state after step {last + 1} is stored" in caplog.text
    assert_same_fit(whole, train(recipe, "cut"))


def test_a_kill_costs_minutes_at_most(train, recipe, monkeypatch):
    monkeypatch.setattr(interruption, "_SECONDS_BETWEEN_STATES", 0.0)
    whole = train(recipe, "whole")
    with pytest.raises(Interruption):
        train(recipe, "cut", callbacks=[FailAt(9)])
    steps = Steps()
    resumed = train(recipe, "cut", callbacks=[steps])
    assert steps.seen[0] == 9  # the one that failed
    assert_same_fit(whole, resumed)


def test_the_signal_is_given_back(train, recipe):
    before = signal.getsignal(signal.SIGTERM)
    train(recipe, "signal")
    assert signal.getsignal(signal.SIGTERM) is before
