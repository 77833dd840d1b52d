from types import SimpleNamespace

import pytest

from components.train.callbacks import progress
from components.train.callbacks.history import History
from components.train.callbacks.progress import LogProgress

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
    )


@pytest.fixture
def history():
    history = History()
    history.epochs = [_EPOCH]
    return history


@pytest.fixture
def lines(caplog):
    caplog.set_level("INFO")
    return lambda: [record.message for record in caplog.records]


def test_a_validated_epoch_is_one_line(history, lines):
    LogProgress(history).on_train_epoch_end(_trainer(), None)
    assert lines() == [
        "epoch 3 of 8: train loss 1.000, validation loss 2.000, validation Dice 0.500 (0 s)"
    ]


def test_an_epoch_that_was_not_validated_is_no_line(lines):
    LogProgress(History()).on_train_epoch_end(_trainer(), None)
    assert lines() == []


def test_a_resumed_training_says_where_it_goes_on(history, lines):
    LogProgress(history).on_train_start(_trainer(), None)
    LogProgress(history).on_train_start(_trainer(step=0), None)
    assert lines() == ["going on after epoch 2 of 8 (step 30)"]


def test_long_epochs_tell_their_steps_now_and_then(history, lines, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    callback = LogProgress(history)
    for clock.now in (110.0, 116.0, 120.0, 132.0):
        callback.on_train_batch_end(_trainer())
    assert lines() == ["step 30 of 80"] * 2


def test_one_process_speaks(history, lines):
    callback = LogProgress(history)
    callback._told = 0.0
    callback.on_train_start(_trainer(writes=False), None)
    callback.on_train_batch_end(_trainer(writes=False))
    callback.on_train_epoch_end(_trainer(writes=False), None)
    assert lines() == []
