from types import SimpleNamespace

import torch
from lightning.pytorch.callbacks import Callback

from components.train import task
from components.train.callbacks.history import History
from components.train.recipe import Schedule
from tests.components.train.conftest import assert_same_fit


def _trainer(epoch=1, dice=0.5, accumulate=1):
    metrics = {"validation_loss": 2.0, "validation_dice": dice}
    return SimpleNamespace(
        current_epoch=epoch - 1,
        accumulate_grad_batches=accumulate,
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.25}])],
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
    )


def _step(history, loss):
    history.on_train_batch_start(_trainer())
    history.on_train_batch_end(_trainer(), None, {"loss": torch.tensor(loss)}, None, 0)


def _end(epoch, history, **changes):
    trainer = _trainer(epoch, **changes)
    for loss in (0.5, 1.5):
        _step(history, loss)
    history.on_train_epoch_end(trainer, None)
    return history.ended(trainer)


def test_an_epoch_has_its_number_losses_dice_and_learning_rate():
    assert _end(3, History(Schedule())) == {
        "epoch": 3,
        "train_loss": 1.0,
        "validation_loss": 2.0,
        "validation_dice": 0.5,
        "learning_rate": 0.25,
    }


def test_epochs_that_are_not_validated_are_left_out():
    history = History(Schedule(epochs=4, validate_every_epochs=2))
    ended, trained = [], []
    for epoch in (1, 2, 3):
        ended.append(_end(epoch, history))
        trained.append(history.trained)
    assert [epoch["epoch"] for epoch in history.epochs] == [2]
    assert ended == [None, trained[1], None]
    assert trained[0] == {"epoch": 1, "train_loss": 1.0, "learning_rate": 0.25}


def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step(train, make_recipe):
    """It was that of the next step: the first of the next phase, and one after all steps."""
    used = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_):
            used.append(trainer.optimizers[0].param_groups[0]["lr"])

    recipe = make_recipe(schedule={"epochs": 2, "phases": ({}, {})})
    history = train(recipe, "rates", callbacks=[Rates()]).history
    each = len(used) // 2
    assert [epoch["learning_rate"] for epoch in history] == [used[each - 1], used[-1]]


def test_a_step_in_micro_batches_has_one_loss():
    history = History(Schedule())
    for index, share in enumerate((0.5, 1.0, 0.25, 0.75)):  # of two steps, as Lightning reports it
        history.on_train_batch_end(
            _trainer(accumulate=2), None, {"loss": torch.tensor(share)}, None, index
        )
    history.on_train_epoch_end(_trainer(), None)
    assert history.trained["train_loss"] == 1.25


def test_the_best_epoch_has_more_dice_than_all_before():
    history = History(Schedule())
    best = [history.is_kept(_end(n, history, dice=d)) for n, d in enumerate((0, 0.5, 0.5, 0.75), 1)]
    assert best == [True, True, False, True]


def test_the_last_epoch_is_kept_where_the_recipe_says_so():
    for checkpoint, kept in (("best", 2), ("last", 3)):
        history = History(Schedule(checkpoint=checkpoint))
        assert history.kept is None
        for epoch, dice in enumerate((0.25, 0.75, 0.5), 1):
            _end(epoch, history, dice=dice)
        assert history.kept == kept


def test_the_history_goes_on_in_another_attempt():
    first, second = History(Schedule()), History(Schedule())
    _end(1, first, dice=0.75)
    second.load_state_dict(first.state_dict())
    assert not second.is_kept(_end(2, second, dice=0.5))
    assert [epoch["epoch"] for epoch in second.epochs] == [1, 2]


class _Steps(Callback):
    def __init__(self):
        self.count = 0

    def on_train_batch_end(self, *_):
        self.count += 1


def _measure(monkeypatch, dices):
    measured = iter(dices)
    monkeypatch.setattr(task, "_dice", lambda *_: torch.tensor(next(measured)))


def test_a_training_without_gain_ends_and_stays_ended(train, make_recipe, monkeypatch):
    recipe = make_recipe(schedule={"epochs": 9, "patience": 2})
    _measure(monkeypatch, [0.3, 0.5, 0.4, 0.5, 0.9])
    first = train(recipe, "patient")
    assert [epoch["epoch"] for epoch in first.history] == [1, 2, 3, 4]
    steps = _Steps()
    assert_same_fit(train(recipe, "patient", callbacks=[steps]), first)
    assert steps.count == 0


def test_only_the_last_phase_is_waited_for(train, make_recipe, monkeypatch):
    """The learning rate of a new phase may first lose what the one before had gained."""
    recipe = make_recipe(schedule={"epochs": 6, "phases": ({}, {}), "patience": 2})
    _measure(monkeypatch, [0.9, 0.8, 0.7, 0.4, 0.5, 0.6])
    assert len(train(recipe, "phases").history) == 6
