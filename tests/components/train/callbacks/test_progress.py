from types import SimpleNamespace

import pytest
import torch

from components.train.callbacks import progress
from components.train.callbacks.history import History
from components.train.callbacks.progress import ReportProgress
from components.train.recipe import Recipe, Schedule

_EPOCH = {
    "epoch": 3,
    "train_loss": 1.0,
    "validation_loss": 2.0,
    "validation_dice": 0.5,
    "learning_rate": 0.25,
}


def _trainer(writes=True, step=30):
    return SimpleNamespace(
        current_epoch=2,
        max_epochs=8,
        is_global_zero=writes,
        global_step=step,
        estimated_stepping_batches=80,
        accumulate_grad_batches=2,
        world_size=3,
    )


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def history():
    history = History(Schedule())
    history.epochs, history.trained = [_EPOCH], _EPOCH
    return history


@pytest.fixture
def lines(caplog):
    caplog.set_level("INFO")
    return lambda: [record.message for record in caplog.records]


def _start(history=None, first=30, recipe=None, listen=lambda epoch: None):
    callback = ReportProgress(recipe or Recipe(), history or History(Schedule()), listen)
    callback.on_train_start(_trainer(step=first))
    return callback


def _steps(callback, clock, seconds, first=30, last=40):
    """Steps of 2 x 3 x 4 slices."""
    callback.on_train_epoch_start(_trainer(step=first))
    clock.now += seconds
    _batch(callback, _trainer(step=last))


def _batch(callback, trainer):
    callback.on_train_batch_end(trainer, None, None, (None, None, torch.arange(4)), 0)


_LINE = "epoch 3 of 8: train loss 1.000, validation loss 2.000, validation Dice 0.500, "


def test_a_validated_epoch_is_one_line_with_the_slices_of_all_processes(history, lines, clock):
    callback = ReportProgress(Recipe(), history, lambda epoch: None)
    callback.on_train_start(_trainer(step=0))
    _steps(callback, clock, seconds=6, first=0, last=10)
    clock.now += 4  # the validation, which counts for the time left
    callback.on_train_epoch_end(_trainer(step=10))
    _steps(callback, clock, seconds=12, first=10, last=15)
    callback.on_train_epoch_end(_trainer(step=15))
    assert lines() == [
        f"{_LINE}40 slices/s (10 s, 70 s left)",
        f"{_LINE}10 slices/s (22 s, 95 s left)",
    ]


def test_steps_of_smaller_slices_count_for_less_of_the_time_left(history, lines, clock):
    """Three of eight epochs at half the size, one of them done in this attempt."""
    phases = ({"length": 3, "image_size": 128}, {"length": 5})
    schedule = Schedule.model_validate({"epochs": 8, "phases": phases})
    callback = _start(history, first=10, recipe=Recipe(schedule=schedule))
    _steps(callback, clock, seconds=3, first=10, last=20)
    callback.on_train_epoch_end(_trainer(step=20))
    left = 3 + 4 * 3 * 5
    assert lines()[-1] == f"{_LINE}80 slices/s (3 s, {left} s left)"


def test_an_epoch_that_was_not_validated_is_no_line(lines):
    callback = ReportProgress(Recipe(), History(Schedule()), lambda epoch: None)
    callback.on_train_epoch_end(_trainer())
    assert lines() == []


def test_a_resumed_training_logs_its_place(history, lines):
    _start(history)
    _start(history, first=0)
    assert lines() == ["resuming after epoch 2 of 8 (step 30)"]


def test_long_epochs_log_their_steps_every_few_seconds(history, lines, clock):
    callback = _start(history)
    _steps(callback, clock, seconds=300)
    history.epochs = []
    for later_s in (10, 6, 14):
        clock.now += later_s
        _batch(callback, _trainer(step=40))
    assert lines()[1:] == [
        "epoch 3 of 8, step 40 of 80: 1 slices/s, 20 min left, validation Dice 0.500",
        "epoch 3 of 8, step 40 of 80: 1 slices/s, 21 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (101, "2 min"), (9000, "2.5 h")]
)
def test_times_are_spelt_in_a_unit_of_their_size(seconds, text):
    assert progress._spell(seconds) == text


def test_one_process_reports(history, lines, clock):
    epochs = []
    callback = ReportProgress(Recipe(), history, epochs.append)
    callback.on_train_start(_trainer(writes=False))
    clock.now += 100
    _batch(callback, _trainer(writes=False))
    callback.on_train_epoch_end(_trainer(writes=False))
    assert lines() == epochs == []


def test_every_epoch_is_reported_with_its_speed(history, clock):
    epochs = []
    callback = _start(history, listen=epochs.append)
    _steps(callback, clock, seconds=6)
    history.epochs, history.trained = [], {"epoch": 4, "train_loss": 0.5}
    callback.on_train_epoch_end(_trainer())
    assert epochs == [{"epoch": 4, "train_loss": 0.5, "slices_per_second": 40}]
