import lightning
import pytest
import torch

from components.shared.errors import UserError
from components.train.callbacks.finite import StopAtNonFiniteLoss


class Slope(lightning.LightningModule):
    """Its loss is the sum of the weights and of the batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, _index):
        return self.weight.sum() + batch.sum()

    def validation_step(self, batch, _index):
        raise AssertionError("weights that are no numbers are not validated")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Device:
    """What the callback asks a module: where its weights are."""

    def __init__(self, name):
        self.device = torch.device(name)


class Place:
    """What the callback asks a trainer."""

    def __init__(self, step, last=False):
        self.global_step, self.is_last_batch, self.current_epoch = step, last, 0


def _run(batches):
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[StopAtNonFiniteLoss()],
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=2,
    )
    trainer.fit(Slope(), torch.tensor(batches), torch.zeros(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_on_the_cpu_the_very_step_is_named(value):
    with pytest.raises(UserError, match=r"no number in step 2 \(epoch 1\); lower train.optimiser"):
        _run([0.0, value, 0.0, 0.0])


def test_an_advice_is_a_setting_that_exists(make_recipe):
    with pytest.raises(UserError) as caught:
        _run([float("nan")])
    for words in ("train.optimiser.learning_rate", "train.compute.precision=32-true"):
        assert words in str(caught.value)
        _, section, key = words.partition("=")[0].split(".")
        assert hasattr(getattr(make_recipe(), section), key)


def _step(callback, number, loss, last=False):
    callback.on_train_batch_end(Place(number, last), Device("cuda"), {"loss": loss}, None, 0)


def test_on_a_gpu_steps_are_looked_at_together():
    callback = StopAtNonFiniteLoss()
    callback.on_train_start(Place(100), Device("cuda"))
    good, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    for number in range(101, 160):
        _step(callback, number, bad if number == 155 else good)
    with pytest.raises(UserError, match="in steps 151 to 160 "):
        _step(callback, 160, good, last=True)


def test_a_bad_loss_is_seen_after_fifty_steps():
    callback = StopAtNonFiniteLoss()
    _step(callback, 1, torch.tensor(float("inf")))
    for number in range(2, 50):
        _step(callback, number, torch.tensor(1.0))
    with pytest.raises(UserError, match="in steps 1 to 50 "):
        _step(callback, 50, torch.tensor(1.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for_between_looks():
    callback, loss = StopAtNonFiniteLoss(), torch.ones((), device="cuda")
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number in range(1, 50):
                _step(callback, number, loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
