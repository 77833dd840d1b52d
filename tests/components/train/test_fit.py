import itertools
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from components.shared.errors import UserError
from components.shared.model.network import build_segmenter
from components.train.checkpoints import Checkpoints
from components.train.data.slices import PreparedVolume, prepare_volumes
from components.train.fit import deal_out, fit
from tests.components.train.conftest import Interruption, assert_same_fit
from tests.components.train.test_checkpoints import Code, replace_last, saved, stored_states


def _interrupt_after(number):
    def interrupt(epoch):
        if epoch["epoch"] == number:
            raise Interruption

    return interrupt


_DEEP = {"encoder_depth": 5, "decoder_channels": (16, 16, 8, 8, 8)}


@pytest.mark.parametrize("decay", [None, pytest.param(0.999, marks=pytest.mark.slow)])
def test_training_learns(train, make_recipe, decay):
    """Also with averaged weights, which had a Dice of 0.1 with a decay that does not grow."""
    recipe = make_recipe(
        network=_DEEP,
        schedule={"epochs": 24, "validate_every_epochs": 8},
        augmentation={"modality_dropout_prob": 0.0},
        optimizer={"ema_decay": decay},
    )
    history = train(recipe, "learn").history
    assert [epoch["epoch"] for epoch in history] == [8, 16, 24]
    assert history[-1]["validation_dice"] > 0.6
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_small_training_measures_what_it_ever_did(train, make_recipe):
    """Another preparation, order, augmentation or loss would show here."""
    history = train(make_recipe(network=_DEEP), "deep").history
    losses = [(one["train_loss"], one["validation_loss"]) for one in history]
    wanted = [(1.8717, 1.8252), (1.7320, 1.7144), (1.6232, 1.6175), (1.5897, 1.6095)]
    # SSE4 gives up to 0.002 less than AVX-512, and a box that is 3 % wider 0.1 more
    np.testing.assert_allclose(losses, wanted, atol=0.005)


def test_a_resumed_training_is_the_uninterrupted_one(train, recipe, whole):
    with pytest.raises(Interruption):
        train(recipe, "cut", _interrupt_after(2))
    reported = []
    resumed = train(recipe, "cut", reported.append)
    assert [epoch["epoch"] for epoch in reported] == [3, 4]
    assert_same_fit(whole, resumed)


@pytest.mark.parametrize("file", ["last", "best"])
def test_a_flipped_bit_costs_time_and_nothing_else(
    train, recipe, whole, dataset, tmp_path, caplog, file
):
    with pytest.raises(Interruption):
        train(recipe, "cut", _interrupt_after(3))
    name = next(iter(stored_states(dataset.store, "cut").values()))[file]
    for folder in (dataset.store.root / "cut", tmp_path / "work" / "cut" / "rank-0"):
        _flip_a_bit(folder / name)
    resumed = train(recipe, "cut")
    assert f"the state after epoch 3 is not used: {name} is damaged" in caplog.text
    assert_same_fit(whole, resumed)


@pytest.mark.parametrize("before", ["epoch 2", "the start"])
def test_a_training_does_not_run_what_a_stored_state_holds(
    train, recipe, whole, dataset, tmp_path, caplog, before
):
    """By a name that is its digest, as whoever can write to the store can give it."""
    with pytest.raises(Interruption):
        train(recipe, "cut", _interrupt_after(3 if before == "epoch 2" else 1))
    replace_last(dataset.store, "cut", saved({"state_dict": Code(tmp_path / "it-ran")}))
    resumed = train(recipe, "cut")
    assert not (tmp_path / "it-ran").exists()
    assert f"holds code, or is no state; trying {before}" in caplog.text
    assert_same_fit(whole, resumed)


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_best_epoch_is_kept(whole, dataset):
    (volume,) = prepare_volumes(dataset, "validation", whole.segmenter)
    with torch.inference_mode():
        image = torch.from_numpy(_image(dataset))
        predicted = whole.segmenter(image) >= 0.5
    truth = torch.from_numpy(volume.label_map).bool()
    dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()).clamp(min=1)
    best = max(epoch["validation_dice"] for epoch in whole.history)
    assert float(dice) == pytest.approx(best, abs=5e-3)


def _image(dataset):
    (entry,) = dataset.entries("validation")
    return dataset.volume(entry).image


@pytest.mark.parametrize("count", [1, 6, 7, 8])
def test_processes_share_the_volumes_out_each_as_many(make_entry, count):
    volumes = [PreparedVolume(make_entry(number), *[number] * 4) for number in range(count)]
    dealt = [deal_out(volumes, rank=rank, ranks=3) for rank in range(3)]
    assert len({len(each) for each in dealt}) == 1
    in_turns = [volume for turn in zip(*dealt, strict=True) for volume in turn]
    assert in_turns[:count] == [(*[number] * 4, 1) for number in range(count)]
    assert set(in_turns[count:]) <= {None}


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
    assert "train.compute.loader_workers=8 is limited to 1 CPU cores" in caplog.text


def test_an_epoch_shorter_than_the_least_step_is_refused(train, make_recipe):
    sampling = {"batch_size": 512, "accumulate": 64}
    with pytest.raises(UserError, match="a step of this recipe needs 128"):
        train(make_recipe(sampling=sampling), "refused")


def test_an_epoch_has_whole_steps(train, make_recipe):
    """Lightning would end it with a step of fewer micro-batches."""
    steps, batches = [], []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            steps.append(trainer.global_step)
            batches.append(batch_idx)

    sampling = {"batch_size": 6, "accumulate": 3}
    train(make_recipe(sampling=sampling, schedule={"epochs": 2}), "whole", callbacks=[Count()])
    assert len(batches) % 6 == 0
    assert steps[-1] == len(batches) // 3


class _Phases(Callback):
    """Notes the encoder after every epoch and the sizes of what the network is shown."""

    def __init__(self):
        self.states, self.trained_on, self.validated_on = [], set(), set()

    def on_fit_start(self, trainer, pl_module):
        self._note(pl_module)
        pl_module.segmenter.network.register_forward_pre_hook(self._look)

    def on_train_epoch_end(self, trainer, pl_module):
        self._note(pl_module)

    def _note(self, pl_module):
        state = pl_module.segmenter.network.encoder.state_dict()
        self.states.append({name: value.clone() for name, value in state.items()})

    def _look(self, network, images):
        (self.trained_on if network.training else self.validated_on).add(images[0].shape[-1])

    def changed(self, epoch):
        """Which of the encoder's tensors an epoch has changed, by their kind."""
        before, after = self.states[epoch - 1 : epoch + 1]
        return {
            ("norm " if value.dim() <= 1 else "convolution ") + name.rpartition(".")[2]
            for name, value in before.items()
            if not torch.equal(value, after[name])
        }


def test_a_frozen_encoder_learns_its_normalisation_alone(train, make_recipe):
    phases = ({"freeze_encoder": True}, {})
    seen = _Phases()
    train(make_recipe(schedule={"epochs": 2, "phases": phases}), "frozen", callbacks=[seen])
    norms = {f"norm {name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert seen.changed(1) == {*norms, "norm num_batches_tracked"}
    assert seen.changed(2) == {*norms, "norm num_batches_tracked", "convolution weight"}


def test_a_phase_learns_at_its_size_and_is_validated_at_the_networks(train, make_recipe):
    phases = ({"image_size": 32}, {"image_size": 64}, {})
    recipe = make_recipe(
        network={"image_size": 96}, schedule={"epochs": 3, "phases": phases, "patience": 9}
    )
    seen = _Phases()
    train(recipe, "sizes", callbacks=[seen])
    assert seen.trained_on == {32, 64, 96}
    assert seen.validated_on == {96}


def test_clipped_gradients_move_the_weights_less(train, make_recipe):
    """AdamW asks only for a gradient's direction, until it is far below its epsilon."""

    def moved(name, clip):
        recipe = make_recipe(
            optimizer={"gradient_clip": clip, "weight_decay": 0}, schedule={"epochs": 1}
        )
        torch.manual_seed(recipe.seed)
        before, after = (
            torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
            for network in (
                build_segmenter(recipe.network).network,
                train(recipe, name).segmenter.network,
            )
        )
        return float((after - before).abs().sum())

    assert moved("clipped", 1e-12) < 0.01 * moved("whole", None)


_METHODS = ("adamw", "muon", {"name": "SGD", "momentum": 0.9})


def _arithmetic():
    """All combinations; a quarter of them, with every triple of the first three, is fast."""
    ways = itertools.product(("32-true", "bf16-mixed"), _METHODS, (None, 1.0))
    for number, way in enumerate(ways):
        for other, more in enumerate(itertools.product((None, 0.9), (1, 2))):
            fast = other == (number + number // 4) % 4
            yield pytest.param(*way, *more, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("precision", "method", "clip", "decay", "accumulate"), _arithmetic())
def test_every_optimizer_trains_in_every_arithmetic(
    train, make_recipe, precision, method, clip, decay, accumulate
):
    recipe = make_recipe(
        optimizer={"method": method, "gradient_clip": clip, "ema_decay": decay},
        sampling={"batch_size": 8, "accumulate": accumulate},
        schedule={"epochs": 1},
        compute={"precision": precision},
    )
    assert math.isfinite(train(recipe, "arithmetic").history[-1]["train_loss"])


def test_parts_of_libraries_train_and_resume(train, make_recipe):
    recipe = make_recipe(
        optimizer={
            "method": {"name": "SGD", "momentum": 0.9, "nesterov": True},
            "loss": ["bce", {"name": "TverskyLoss", "alpha": 0.3, "weight": 0.5}],
        },
        schedule={"epochs": 3, "lr_schedule": {"name": "PolynomialLR", "power": 0.9}},
    )
    whole = train(recipe, "whole")
    with pytest.raises(Interruption):
        train(recipe, "cut", _interrupt_after(2))
    assert_same_fit(whole, train(recipe, "cut"))


def test_deterministic_trainings_are_equal_bit_for_bit(train, make_recipe):
    compute = {"deterministic": True, "precision": "bf16-mixed"}
    recipe = make_recipe(compute=compute, schedule={"epochs": 1})
    torch.set_num_threads(2)
    fits = [train(recipe, name) for name in ("one", "two")]
    assert torch.are_deterministic_algorithms_enabled()
    assert_same_fit(*fits)


def test_a_part_without_tumour_is_refused(dataset, recipe, tmp_path):
    segmenter = build_segmenter(recipe.network)
    volumes = prepare_volumes(dataset, "train", segmenter)
    empty = [replace(v, masks=v.masks * 0, label_map=v.label_map * 0) for v in volumes]
    with pytest.raises(UserError, match="no slice of the training part has tumour"):
        fit(recipe, segmenter, empty, volumes, Checkpoints(dataset.store, "e", tmp_path), print)


def test_of_lightnings_lines_only_warnings_are_told(train, recipe, caplog):
    """It sets its level itself when it is imported; MLflow imports it under its other name."""
    caplog.set_level("INFO")
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in names:
        logging.getLogger(name).setLevel(logging.INFO)
    train(recipe, "quiet")
    assert "epoch 1 of" in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(names)]
