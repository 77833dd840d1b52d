import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from components.shared.model.network import build_segmenter
from components.train import fit as fitting
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.fit import deal_out
from components.train.task import SegmentationTask


class Interruption(Exception):
    """Stands for whatever ends a task in the middle."""


class Measure(SegmentationTask):
    """Validates outside of a trainer and keeps what is logged."""

    def log(self, name, value, **_):
        self.measured[name] = float(value)

    @torch.inference_mode()
    def measure(self, volume):
        self.measured = {}
        (arrays,) = deal_out([volume], rank=0, ranks=1)
        self.on_validation_epoch_start()
        self.validation_step(tuple(map(torch.from_numpy, arrays)), 0)
        self.on_validation_epoch_end()
        return self.measured


class InterruptAt(Callback):
    def __init__(self, epoch):
        self._epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self._epoch:
            raise Interruption


@pytest.fixture(params=["before", "after"])
def train(request, make_recipe, dataset, tmp_path, monkeypatch):
    """Trains with averaged weights; the averaging stands on either side of our callbacks."""
    recipe = make_recipe(schedule={"epochs": 4}, optimizer={"learning_rate": 0.01})

    def train(name, *further):
        averaging = EMAWeightAveraging(decay=0.8)
        if request.param == "before":
            # the first in the list, which does nothing in one process
            monkeypatch.setattr(fitting, "SyncWeights", lambda: averaging)
        else:
            further = (averaging, *further)
        torch.manual_seed(0)
        segmenter = build_segmenter(recipe.network)
        return fitting.fit(
            recipe,
            segmenter,
            prepare_volumes(dataset, "train", segmenter),
            prepare_volumes(dataset, "validation", segmenter),
            Checkpoints(dataset.store, name, tmp_path / "work"),
            lambda epoch: None,
            further,
        )

    return train


def test_the_weights_that_were_validated_are_the_ones_that_are_kept(train, dataset, make_recipe):
    """With averaging, the Dice was of the average and the weights were the others."""
    fitted = train("average")
    recipe = make_recipe()
    task = Measure(
        fitted.segmenter,
        recipe,
        micro_batch=32,
    )
    (volume,) = prepare_volumes(dataset, "validation", fitted.segmenter)
    best = max(fitted.history, key=lambda epoch: epoch["validation_dice"])
    assert best["validation_dice"] > 0
    measured = task.measure(volume)
    assert measured["validation_loss"] == pytest.approx(best["validation_loss"], rel=1e-5)
    assert measured["validation_dice"] == pytest.approx(best["validation_dice"], rel=1e-5)


def test_a_resumed_training_with_averaged_weights_is_the_uninterrupted_one(train):
    whole = train("whole")
    with pytest.raises(Interruption):
        train("cut", InterruptAt(2))
    resumed = train("cut")
    assert resumed.history == whole.history
    for name, weight in whole.segmenter.state_dict().items():
        torch.testing.assert_close(resumed.segmenter.state_dict()[name], weight, rtol=0, atol=0)
