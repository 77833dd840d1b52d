import itertools
import os
import random
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from components.train.exit_codes import PREEMPTED_STATUS
from tests.components.train.attempts import Attempts, End, Server
from tests.components.train.conftest import assert_same_fit


class SignalAt(Callback):
    """Sends this process SIGTERM after some step."""

    def __init__(self, step):
        self._step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)


class Steps(Callback):
    """Tells which steps were done."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append(trainer.global_step)


def _end(train, recipe, *callbacks, listen=lambda epoch: None):
    """Trains until SIGTERM ends it."""
    with pytest.raises(SystemExit) as ended:
        train(recipe, "cut", listen, callbacks)
    assert ended.value.code == PREEMPTED_STATUS


@pytest.mark.parametrize("workers", [0, 1])
def test_a_terminated_training_loses_less_than_an_epoch(train, make_recipe, caplog, workers):
    """Within the first epoch, which has no best weights yet, and within a later one."""
    compute = {"precision": "32-true", "device": "cpu", "loader_workers": workers}
    recipe = make_recipe(schedule={"epochs": 4}, compute=compute)
    steps = Steps()
    whole = train(recipe, "whole", callbacks=[steps])
    each = len(steps.seen) // 4
    for step, stored in ((1, 0), (2 * each + 1, 2)):
        seen = Steps()
        _end(train, recipe, SignalAt(step), seen)
        assert seen.seen[-1] == step  # at once
        assert f"another attempt continues after epoch {stored} of 4" in caplog.text
    resumed = Steps()
    again = train(recipe, "cut", callbacks=[resumed])
    assert resumed.seen[0] == 2 * each + 1
    assert_same_fit(whole, again)


def test_an_epoch_that_is_not_validated_is_stored_too(train, make_recipe):
    recipe = make_recipe(schedule={"epochs": 4, "validate_every_epochs": 2})
    steps = Steps()
    whole = train(recipe, "whole", callbacks=[steps])
    each = len(steps.seen) // 4
    for step in (each + 1, 3 * each + 1):
        _end(train, recipe, SignalAt(step))
    resumed = Steps()
    again = train(recipe, "cut", callbacks=[resumed])
    assert resumed.seen == steps.seen[3 * each :]
    assert_same_fit(whole, again)


class SignalInValidation(Callback):
    """Sends this process SIGTERM in some validation."""

    def __init__(self, number):
        self._left = number

    def on_validation_batch_start(self, *_):
        self._left -= 1  # there is one volume
        if not self._left:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_signal_within_a_validation_ends_it(train, recipe, averaged):
    """Averaged weights are in the network's place for the time of the validation."""

    def averaging():
        return [EMAWeightAveraging(decay=0.8)] if averaged else []

    whole = train(recipe, "whole", callbacks=averaging())
    _end(train, recipe, SignalInValidation(2), *averaging())
    reported = []
    again = train(recipe, "cut", reported.append, averaging())
    assert [epoch["epoch"] for epoch in reported] == [2, 3, 4]
    assert_same_fit(whole, again)


def test_a_signal_after_the_last_validation_is_not_left_to_what_follows(train, recipe, caplog):
    whole = train(recipe, "whole")

    def end(epoch):
        if epoch["epoch"] == recipe.schedule.epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    _end(train, recipe, listen=end)
    assert "another attempt continues after epoch 4 of 4" in caplog.text
    steps = Steps()
    assert_same_fit(whole, train(recipe, "cut", callbacks=[steps]))
    assert steps.seen == []


def test_the_signal_is_given_back(train, recipe):
    before = signal.getsignal(signal.SIGTERM)
    train(recipe, "signal")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def attempts(make_recipe, dataset, tmp_path):
    """At recipes with all that has a state: phases, averaged weights, the one or other optimizer.

    With timm's network for tests. Between the two phases the encoder thaws and the slices grow.
    """
    small = {"encoder": "tu-test_resnet", "encoder_depth": 4, "decoder_channels": (16, 8, 8, 8)}
    phases = ({"freeze_encoder": True, "image_size": 32}, {"length": 2, "encoder_factor": 0.5})
    recipes = [
        make_recipe(
            network={**small, "image_size": 64},
            optimizer={"method": method, "ema_decay": 0.9},
            schedule={"epochs": 3, "phases": phases},
        )
        for method in ("adamw", "muon")
    ]
    server = Server()
    yield [Attempts(recipe, dataset, tmp_path, server) for recipe in recipes]
    server.end()


def _ends():
    """20: of each kind of point by each signal, in an order and after times of chance.

    A training has one end of a phase, which is reached when it is reported and when it is stored.
    So five ends are planned for each training, one of them there, first or after another.
    """
    chance = random.Random(7)
    others = [
        End(point, chance.randint(1, most), number)
        for point, most, times in (("step", 3, 3), ("save", 10, 3), ("validation", 1, 2))
        for number in [*_STATUS] * times
    ]
    phases = [End("phase", nth, number) for nth in (1, 2) for number in _STATUS]
    chance.shuffle(others)
    chance.shuffle(phases)
    for training, end in enumerate(phases):
        others.insert(5 * training + training % 2, end)
    return others


@pytest.mark.slow
def test_a_training_that_is_ended_at_twenty_points_ends_as_if_it_had_not_been(attempts):
    """In a step, a validation, a save, between phases; none costs more than an epoch."""
    for which, attempt in enumerate(attempts):
        assert attempt.run(f"whole-{which}") == 0
    each = len(attempts[0].steps("whole-0")) // 3
    ends = _ends()
    assert len(ends) == 20
    for number in itertools.count():
        which = number % len(attempts)
        attempt, name, last = attempts[which], f"ended-{number}", None
        while True:
            end = ends[0] if ends else None
            before = len(attempt.steps(name))
            status = attempt.run(name, end)
            steps = attempt.steps(name)
            if last and steps[before:]:
                epochs_done = (steps[before] - 1) / each
                assert epochs_done in ((last - 1) // each, last / each), end
            if status == 0:
                assert before or not end, end  # from the start each end is come to
                break
            assert status == _STATUS[end.signal], end
            last = steps[-1] if steps else None
            if end.signal == signal.SIGTERM:
                begun = attempt.begun_after_signal(name)
                assert begun in ([], ["step"], ["volume"], ["step", "volume"]), end
            del ends[0]
        _assert_equal(attempt.result(name), attempt.result(f"whole-{which}"))
        if not ends:
            break


_STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: PREEMPTED_STATUS}


def _assert_equal(one, other):
    assert one["history"] == other["history"]
    for part in ("best", "last"):
        assert one[part].keys() == other[part].keys()
        for name, value in other[part].items():
            assert torch.equal(one[part][name], value), (part, name)
