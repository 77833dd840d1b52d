from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from components.shared.errors import UserError
from components.train.callbacks.nan_guard import NanGuard, advice_against


class Slope(lightning.LightningModule):
    """Its loss is the sum of the weights and of the batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, _index):
        return self.weight.sum() + batch[0].sum()

    def validation_step(self, batch, _index):
        raise AssertionError("weights that are no numbers are not validated")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.125)


class Device:
    """What the callback asks a module: where its weights are."""

    def __init__(self, name):
        self.device = torch.device(name)


def _volume_of(index):
    return f"volume-{index // 10}"


def _place(step, last=False, rates=(0.5,)):
    """What the callback asks a trainer before a step."""
    groups = [{"lr": rate} for rate in rates]
    return SimpleNamespace(
        global_step=step - 1,
        is_last_batch=last,
        current_epoch=0,
        world_size=1,
        optimizers=[SimpleNamespace(param_groups=groups)],
        strategy=SingleDeviceStrategy(),
    )


def _batch(loss, *slices):
    """Each slice has the next one pasted in, which is of another volume after a 9."""
    pairs = torch.tensor([(index, index + 1) for index in slices or (0,)])
    return torch.tensor([loss]), torch.zeros(1), pairs


def _run(batches):
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[NanGuard(_volume_of, "try less")],
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=2,
    )
    trainer.fit(Slope(), DataLoader(batches, batch_size=None), torch.zeros(1))


_RATE = "train.optimizer.learning_rate"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_on_the_cpu_the_very_step_is_named_with_its_rate_and_volumes(value):
    with pytest.raises(UserError) as caught:
        _run([_batch(0.0), _batch(value, 31, 7, 39), _batch(0.0)])
    assert str(caught.value).startswith(
        "the loss became NaN or infinite in step 2 (epoch 1, learning rate 0.125, volumes "
        "volume-0, volume-3, volume-4); try less"
    )


@pytest.mark.parametrize(
    ("found", "precision", "advice"),
    [
        (False, "bf16-mixed", f"lower {_RATE}, or use train.compute.precision=32-true"),
        (False, "32-true", f"lower {_RATE}"),
        (True, "32-true", f"lower {_RATE} (0.003 was found), with find_learning_rate=false"),
    ],
)
def test_the_advice_is_of_what_the_recipe_does_not_do_yet(make_recipe, found, precision, advice):
    recipe = make_recipe(
        optimizer={"find_learning_rate": found, "learning_rate": 0.003},
        compute={"precision": precision},
    )
    assert advice_against(recipe) == advice


def _step(callback, number, loss, rates=(0.5,), **place):
    trainer, module = _place(number, rates=rates, **place), Device("cuda")
    batch = _batch(0.0, number * 10)
    callback.on_train_batch_start(trainer, module, batch, 0)
    callback.on_train_batch_end(trainer, module, {"loss": loss}, batch, 0)


_GOOD, _BAD = torch.tensor(1.0), torch.tensor(float("nan"))


def test_on_a_gpu_steps_are_looked_at_together_and_the_first_bad_one_is_named():
    callback = NanGuard(_volume_of, "try less")
    for number in range(101, 160):
        _step(callback, number, _BAD if number >= 155 else _GOOD, rates=(0.5 / number, 0.001))
    message = r"in step 155 \(epoch 1, learning rate 0.001 to 0.00323, volumes volume-155\)"
    with pytest.raises(UserError, match=message):
        _step(callback, 160, _GOOD, last=True)


def test_a_bad_loss_is_seen_after_fifty_steps():
    callback = NanGuard(_volume_of, "try less")
    _step(callback, 1, torch.tensor(float("inf")))
    for number in range(2, 50):
        _step(callback, number, _GOOD)
    with pytest.raises(UserError, match="in step 1 "):
        _step(callback, 50, _GOOD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for_between_looks():
    callback, loss = NanGuard(_volume_of, "try less"), torch.ones((), device="cuda")
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number in range(1, 50):
                _step(callback, number, loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
