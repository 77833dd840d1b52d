import itertools
import os
import random
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from components.train.exit_codes import PREEMPTED_STATUS
from tests.components.train.attempts import Attempts, End, Server
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
def test_a_terminated_training_loses_nothing(train, make_recipe, caplog, workers):
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


class SignalInValidation(Callback):
    """Sends this process SIGTERM in some validation."""

    def __init__(self, number):
        self._left = number

    def on_validation_batch_start(self, *_):
        self._left -= 1  # there is one volume
        if not self._left:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_signal_within_a_validation_ends_it_and_it_is_done_again(train, recipe, caplog, averaged):
    """Averaged weights are in the network's place for the time of the validation."""

    def averaging():
        return [EMAWeightAveraging(decay=0.8)] if averaged else []

    steps = Steps()
    whole = train(recipe, "whole", callbacks=[steps, *averaging()])
    last = len(steps.seen) // recipe.schedule.epochs
    for epoch in (1, 1, 4):  # each attempt begins with the first validation
        callbacks = [SignalInValidation(epoch), *averaging()]
        with pytest.raises(SystemExit) as ended:
            train(recipe, "cut", callbacks=callbacks)
        assert ended.value.code == PREEMPTED_STATUS
        assert f"after step {epoch * last} is stored, before its validation" in caplog.text
    resumed, reported = Steps(), []
    again = train(recipe, "cut", reported.append, [resumed, *averaging()])
    assert resumed.seen == []  # all were done
    assert [epoch["epoch"] for epoch in reported] == [4]
    assert_same_fit(whole, again)


def test_a_signal_after_the_last_step_of_an_epoch_is_answered_in_its_validation(
    train, recipe, caplog
):
    whole = train(recipe, "whole")
    steps = Steps()
    train(recipe, "steps", callbacks=[steps])
    last = len(steps.seen) // recipe.schedule.epochs
    with pytest.raises(SystemExit):
        train(recipe, "cut", callbacks=[SignalAt(last)])
    assert f"the state after step {last} is stored, before its validation" in caplog.text
    assert_same_fit(whole, train(recipe, "cut"))


def test_a_signal_after_the_last_validation_is_not_left_to_what_follows(train, recipe, caplog):
    whole = train(recipe, "whole")

    def end(epoch):
        if epoch["epoch"] == recipe.schedule.epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        train(recipe, "cut", end)
    assert ended.value.code == PREEMPTED_STATUS
    steps = Steps()
    assert_same_fit(whole, train(recipe, "cut", callbacks=[steps]))
    assert steps.seen == []


@pytest.mark.parametrize("sampling", [{"batch_size": 4}, {"batch_size": 8, "accumulate": 4}])
def test_a_terminated_training_in_micro_batches_loses_nothing(train, make_recipe, sampling):
    recipe = make_recipe(sampling=sampling)
    whole = train(recipe, "whole")
    cut = Steps()
    with pytest.raises(SystemExit):
        train(recipe, "cut", callbacks=[SignalAt(1), cut])
    assert max(cut.seen) == 1  # the whole step, and no batch of the next
    assert_same_fit(whole, train(recipe, "cut"))


def test_a_kill_costs_what_was_done_since_a_state_was_stored(train, make_recipe):
    steps = Steps()
    whole = train(make_recipe(), "whole", callbacks=[steps])
    validated = len(steps.seen) // 2  # of which the state is stored in any case
    for every_s, lost in ((0.0, 1), (3600.0, 2)):
        recipe, name = make_recipe(schedule={"store_every_s": every_s}), f"every-{every_s}"
        with pytest.raises(Interruption):
            train(recipe, name, callbacks=[FailAt(validated + 2)])
        again = Steps()
        resumed = train(recipe, name, callbacks=[again])
        assert again.seen[0] == validated + 2 - lost + 1
        assert_same_fit(whole, resumed)


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
            schedule={"epochs": 3, "phases": phases, "store_every_s": 0.1},
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
    """In a step, a validation, a save, between phases; SIGTERM costs no step."""
    for which, attempt in enumerate(attempts):
        assert attempt.run(f"whole-{which}") == 0
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
            assert last is None or steps[before:][:1] in ([], [last + 1])  # none is done twice
            if status == 0:
                assert before or not end, end  # from the start each end is come to
                break
            assert status == _STATUS[end.signal], end
            last = None
            if end.signal == signal.SIGTERM:
                last = steps[-1] if steps else None
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
