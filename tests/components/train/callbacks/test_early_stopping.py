import torch
from lightning.pytorch.callbacks import Callback

from components.train import task
from tests.components.train.conftest import assert_same_fit


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
