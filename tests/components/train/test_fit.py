import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from components.shared.errors import UserError
from components.train.callbacks import interruption
from components.train.checkpoints import Checkpoints
from components.train.fit import fit
from components.train.network import build_segmenter
from components.train.slices import prepare_volumes
from components.train.statuses import PREEMPTED_STATUS


class SignalAt(Callback):
    """Sends this process SIGTERM after some step."""

    def __init__(self, step):
        self._step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)


class Interruption(Exception):
    """Stands for whatever ends a task in the middle."""


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


@pytest.fixture
def train(dataset, tmp_path):
    def train(recipe, name, listen=lambda epoch: None, callbacks=()):
        torch.manual_seed(recipe.seed)
        segmenter = build_segmenter(recipe.network)
        return fit(
            recipe,
            segmenter,
            prepare_volumes(dataset, "train", segmenter),
            prepare_volumes(dataset, "validation", segmenter),
            Checkpoints(dataset.store, name, tmp_path / "work"),
            listen,
            callbacks,
        )

    return train


def _interrupt_after(number):
    def interrupt(epoch):
        if epoch["epoch"] == number:
            raise Interruption

    return interrupt


def _assert_same(one, two):
    assert one.history == two.history
    for name, weight in one.segmenter.state_dict().items():
        torch.testing.assert_close(two.segmenter.state_dict()[name], weight, rtol=0, atol=0)


def test_training_learns(train, make_recipe):
    recipe = make_recipe(
        schedule={"epochs": 24, "validate_every_epochs": 8},
        augmentation={"missing_sequence_share": 0.0},
    )
    history = train(recipe, "learn").history
    assert [epoch["epoch"] for epoch in history] == [8, 16, 24]
    assert history[-1]["validation_dice"] > 0.6
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_resumed_training_is_the_uninterrupted_one(train, recipe):
    whole = train(recipe, "whole")
    with pytest.raises(Interruption):
        train(recipe, "cut", _interrupt_after(2))
    told = []
    resumed = train(recipe, "cut", told.append)
    assert [epoch["epoch"] for epoch in told] == [3, 4]
    _assert_same(whole, resumed)


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
    _assert_same(whole, resumed)


def test_after_the_last_step_of_an_epoch_its_validation_comes_first(train, recipe, caplog):
    whole = train(recipe, "whole")
    steps = Steps()
    train(recipe, "steps", callbacks=[steps])
    last = len(steps.seen) // recipe.schedule.epochs
    with pytest.raises(SystemExit):
        train(recipe, "cut", callbacks=[SignalAt(last)])
    assert f"the state after step {last + 1} is stored" in caplog.text
    _assert_same(whole, train(recipe, "cut"))


def test_a_kill_costs_minutes_at_most(train, recipe, monkeypatch):
    monkeypatch.setattr(interruption, "_SECONDS_BETWEEN_STATES", 0.0)
    whole = train(recipe, "whole")
    with pytest.raises(Interruption):
        train(recipe, "cut", callbacks=[FailAt(9)])
    steps = Steps()
    resumed = train(recipe, "cut", callbacks=[steps])
    assert steps.seen[0] == 9  # the one that failed
    _assert_same(whole, resumed)


def test_the_signal_is_given_back(train, recipe):
    before = signal.getsignal(signal.SIGTERM)
    train(recipe, "signal")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("file", ["last", "best"])
def test_a_flipped_bit_costs_time_and_nothing_else(train, recipe, dataset, tmp_path, caplog, file):
    whole = train(recipe, "whole")
    with pytest.raises(Interruption):
        train(recipe, "cut", _interrupt_after(3))
    name = json.loads(dataset.store.read("cut/states.json"))[0][file]
    for folder in (dataset.store.root / "cut", tmp_path / "work" / "cut" / "rank-0"):
        _flip_a_bit(folder / name)
    resumed = train(recipe, "cut")
    assert f"the state after epoch 3 is not used: {name} is damaged" in caplog.text
    _assert_same(whole, resumed)


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_best_epoch_is_kept(train, recipe, dataset):
    fitted = train(recipe, "best")
    (volume,) = prepare_volumes(dataset, "validation", fitted.segmenter)
    with torch.inference_mode():
        image = torch.from_numpy(_image(dataset))
        predicted = fitted.segmenter(image) >= 0.5
    truth = torch.from_numpy(volume.truth).bool()
    dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()).clamp(min=1)
    best = max(epoch["validation_dice"] for epoch in fitted.history)
    assert float(dice) == pytest.approx(best, abs=5e-3)


def _image(dataset):
    (entry,) = dataset.entries("validation")
    return dataset.volume(entry).image


def test_as_many_processes_read_as_there_are_cores(train, make_recipe, monkeypatch, caplog):
    monkeypatch.setattr("components.train.fit.usable_cores", lambda: 1)
    created = []
    loader = DataLoader.__init__

    def create(self, *arguments, **options):
        created.append(options.get("num_workers", 0))
        loader(self, *arguments, **options)

    monkeypatch.setattr(DataLoader, "__init__", create)
    compute = {"precision": "32-true", "device": "cpu", "loader_workers": 8}
    train(make_recipe(schedule={"epochs": 1}, compute=compute), "loaders")
    assert max(created) == 1
    assert "train.compute.loader_workers=8, CPU cores: 1; as many read" in caplog.text


def test_a_part_without_tumour_is_refused(dataset, recipe, tmp_path):
    segmenter = build_segmenter(recipe.network)
    volumes = prepare_volumes(dataset, "train", segmenter)
    empty = [replace(v, masks=v.masks * 0, truth=v.truth * 0) for v in volumes]
    with pytest.raises(UserError, match="no slice of the training part has tumour"):
        fit(recipe, segmenter, empty, volumes, Checkpoints(dataset.store, "e", tmp_path), print)
