from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from components.shared.errors import UserError
from components.train.checkpoints import Checkpoints
from components.train.fit import fit
from components.train.network import build_segmenter
from components.train.slices import prepare_volumes


class Interruption(Exception):
    """Stands for whatever ends a task in the middle."""


def _fit(dataset, recipe, tmp_path, name, listen=lambda epoch: None):
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe)
    return fit(
        recipe,
        segmenter,
        prepare_volumes(dataset, "train", segmenter),
        prepare_volumes(dataset, "validation", segmenter),
        Checkpoints(dataset.store, name, tmp_path / "work"),
        listen,
    )


def test_training_learns(dataset, recipe, tmp_path):
    long = recipe.model_copy(
        update={"epochs": 24, "validate_every_epochs": 8, "missing_sequence_share": 0.0}
    )
    history = _fit(dataset, long, tmp_path, "learn").history
    assert [epoch["epoch"] for epoch in history] == [8, 16, 24]
    assert history[-1]["validation_dice"] > 0.6
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_resumed_training_is_the_uninterrupted_one(dataset, recipe, tmp_path):
    whole = _fit(dataset, recipe, tmp_path, "whole")

    def interrupt(epoch):
        if epoch["epoch"] == 2:
            raise Interruption

    with pytest.raises(Interruption):
        _fit(dataset, recipe, tmp_path, "cut", interrupt)
    told = []
    resumed = _fit(dataset, recipe, tmp_path, "cut", told.append)
    assert [epoch["epoch"] for epoch in told] == [3, 4]
    assert resumed.history == whole.history
    for name, weight in whole.segmenter.state_dict().items():
        torch.testing.assert_close(resumed.segmenter.state_dict()[name], weight, rtol=0, atol=0)


def test_the_best_epoch_is_kept(dataset, recipe, tmp_path):
    fitted = _fit(dataset, recipe, tmp_path, "best")
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


def test_as_many_processes_read_as_there_are_cores(dataset, recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("components.train.fit.usable_cores", lambda: 1)
    many = recipe.model_copy(update={"loader_workers": 8, "epochs": 1})
    created = []
    loader = DataLoader.__init__

    def create(self, *arguments, **options):
        created.append(options.get("num_workers", 0))
        loader(self, *arguments, **options)

    monkeypatch.setattr(DataLoader, "__init__", create)
    _fit(dataset, many, tmp_path, "loaders")
    assert max(created) == 1
    assert "train.loader_workers=8, CPU cores: 1; as many read" in caplog.text


def test_a_diverging_loss_is_told(dataset, recipe, tmp_path):
    wild = recipe.model_copy(update={"learning_rate": 1.0, "intensity_shift": 1e38})
    with pytest.raises(UserError, match=r"the loss became .*lower train.learning_rate"):
        _fit(dataset, wild, tmp_path, "wild")


def test_a_part_without_tumour_is_refused(dataset, recipe, tmp_path):
    segmenter = build_segmenter(recipe)
    volumes = prepare_volumes(dataset, "train", segmenter)
    empty = [replace(v, masks=v.masks * 0, truth=v.truth * 0) for v in volumes]
    with pytest.raises(UserError, match="no slice of the training part has tumour"):
        fit(recipe, segmenter, empty, volumes, Checkpoints(dataset.store, "e", tmp_path), print)
