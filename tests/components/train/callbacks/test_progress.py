from types import SimpleNamespace

import pytest
import torch

from components.train.callbacks import progress
from components.train.callbacks.history import History
from components.train.callbacks.progress import LogProgress, MeasurePace, TellEpochs
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


def _steps(pace, clock, seconds, first=30, last=40):
    """Steps of 2 x 3 x 4 slices."""
    pace.on_train_epoch_start(_trainer(step=first), None)
    clock.now += seconds
    batch = (None, None, torch.arange(4))
    pace.on_train_batch_end(_trainer(step=last), None, None, batch, 0)


def test_the_pace_is_of_the_slices_of_all_processes_in_an_epoch(clock):
    pace = MeasurePace(Recipe())
    pace.on_train_start(_trainer(), None)
    assert pace.slices_per_second == 0
    assert pace.left_s(_trainer()) == 0
    _steps(pace, clock, seconds=6)
    assert pace.slices_per_second == 40
    clock.now += 4  # the validation, which counts for the time left
    assert pace.left_s(_trainer(step=40)) == 40
    _steps(pace, clock, seconds=12, first=40, last=45)
    assert pace.slices_per_second == 10


def test_steps_of_smaller_slices_count_for_less_of_the_time_left(clock):
    """Three of eight epochs at half the size, one of them done in this attempt."""
    phases = ({"length": 3, "image_size": 128}, {"length": 5})
    schedule = Schedule.model_validate({"epochs": 8, "phases": phases})
    pace = MeasurePace(Recipe(schedule=schedule))
    pace.on_train_start(_trainer(step=10), None)
    _steps(pace, clock, seconds=6, first=10, last=20)
    assert pace.left_s(_trainer(step=20)) == 6 + 4 * 6 * 5


def test_a_validated_epoch_is_one_line(history, lines, clock):
    pace = MeasurePace(Recipe())
    pace.on_train_start(_trainer(), None)
    callback = LogProgress(history, pace)
    _steps(pace, clock, seconds=6)
    callback.on_train_epoch_end(_trainer(step=40), None)
    assert lines() == [
        "epoch 3 of 8: train loss 1.000, validation loss 2.000, validation Dice 0.500, "
        "40 slices/s (6 s, 24 s left)"
    ]


def test_an_epoch_that_was_not_validated_is_no_line(lines):
    LogProgress(History(Schedule()), MeasurePace(Recipe())).on_train_epoch_end(_trainer(), None)
    assert lines() == []


def test_a_resumed_training_says_where_it_goes_on(history, lines):
    callback = LogProgress(history, MeasurePace(Recipe()))
    callback.on_train_start(_trainer(), None)
    callback.on_train_start(_trainer(step=0), None)
    assert lines() == ["going on after epoch 2 of 8 (step 30)"]


def test_long_epochs_tell_their_steps_now_and_then(history, lines, clock):
    pace = MeasurePace(Recipe())
    pace.on_train_start(_trainer(), None)
    callback = LogProgress(history, pace)
    _steps(pace, clock, seconds=300)
    callback.on_train_batch_end(_trainer(step=40))
    history.epochs = []
    for later_s in (10, 6, 14):
        clock.now += later_s
        callback.on_train_batch_end(_trainer(step=40))
    assert lines() == [
        "epoch 3 of 8, step 40 of 80: 1 slices/s, 20 min left, validation Dice 0.500",
        "epoch 3 of 8, step 40 of 80: 1 slices/s, 21 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (101, "2 min"), (9000, "2.5 h")]
)
def test_times_are_spelt_in_a_unit_of_their_size(seconds, text):
    assert progress._spell(seconds) == text


def test_one_process_speaks(history, lines):
    told = []
    callback = LogProgress(history, MeasurePace(Recipe()))
    callback._told = 0.0
    callback.on_train_start(_trainer(writes=False), None)
    callback.on_train_batch_end(_trainer(writes=False))
    callback.on_train_epoch_end(_trainer(writes=False), None)
    tell = TellEpochs(history, MeasurePace(Recipe()), told.append)
    tell.on_train_epoch_end(_trainer(writes=False), None)
    assert lines() == told == []


def test_every_epoch_is_told_with_its_pace(history, clock):
    told, pace = [], MeasurePace(Recipe())
    pace.on_train_start(_trainer(), None)
    tell = TellEpochs(history, pace, told.append)
    tell.on_train_epoch_end(_trainer(), None)  # only its validation was left to do
    _steps(pace, clock, seconds=6)
    history.epochs, history.trained = [], {"epoch": 4, "train_loss": 0.5}
    tell.on_train_epoch_end(_trainer(), None)
    assert told == [_EPOCH, {"epoch": 4, "train_loss": 0.5, "slices_per_second": 40}]
