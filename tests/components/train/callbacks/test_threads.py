import logging

import lightning
import pytest
import torch
from torch import nn

from components.shared.threads import FastestThreads
from components.train.callbacks.threads import ChooseThreads
from components.train.recipe import Compute


class Task(lightning.LightningModule):
    """A network whose state a step changes completely: weights, batch statistics, dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.1), nn.Conv2d(4, 1, 1)
        )
        self.counts = []

    def training_step(self, batch, index):
        self.counts.append(torch.get_num_threads())
        torch.manual_seed(index)
        return (self.network(batch[0].float()) - batch[1]).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.fixture(autouse=True)
def _three_threads(caplog):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    caplog.set_level(logging.INFO, logger="components.shared.threads")
    yield
    torch.set_num_threads(before)


def _train(*callbacks, task=None):
    task = task or Task()
    images = torch.rand(24, 2, 16, 16, generator=torch.Generator().manual_seed(1)).half()
    batches = torch.utils.data.TensorDataset(images, images[:, :1].float())
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=4))
    return task


def test_a_rehearsal_changes_nothing(monkeypatch):
    """A training that rehearses before each step but the first learns what one without does."""
    plain = _train()
    rehearsed = []

    def rehearse(self, rehearsal):
        work = rehearsal()
        rehearsed.extend(work() for _ in range(3))

    monkeypatch.setattr(FastestThreads, "rehearse", rehearse)
    task = Task()
    _train(ChooseThreads(task.network, Compute(), lambda _: 16), task=task)
    assert len(rehearsed) == 3 * (len(task.counts) - 1)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], value, rtol=0, atol=0)


def test_a_rehearsal_is_of_slices_of_the_epochs_size(monkeypatch):
    sides = []

    def rehearse(self, rehearsal):
        handle = nn.modules.module.register_module_forward_pre_hook(
            lambda _, given: sides.append(given[0].shape[-1])
        )
        with handle:
            rehearsal()()

    monkeypatch.setattr(FastestThreads, "rehearse", rehearse)
    task = Task()
    _train(ChooseThreads(task.network, Compute(), lambda epoch: 8 + epoch), task=task)
    assert set(sides) == {8}


def test_the_number_that_is_asked_for(caplog):
    task = Task()
    _train(ChooseThreads(task.network, Compute(threads=2), lambda _: 16), task=task)
    assert task.counts == [2] * 6
    assert torch.get_num_threads() == 3
    assert _lines(caplog) == []


def test_a_deterministic_training_takes_all_whatever_is_fastest(caplog):
    task = Task()
    _train(ChooseThreads(task.network, Compute(deterministic=True), lambda _: 16), task=task)
    assert task.counts == [3] * 6
    assert _lines(caplog) == []


def test_a_training_that_fails_leaves_all_threads_to_what_comes_after():
    task = Task()
    task.training_step = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        _train(ChooseThreads(task.network, Compute(threads=2), lambda _: 16), task=task)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("fastest", [1, 3])
def test_from_the_second_step_the_fastest_number_is_used_and_logged(monkeypatch, caplog, fastest):
    found = {3: 0.7, 1: 0.7}
    found[fastest] = 0.3
    monkeypatch.setattr("components.shared.threads.time_threads", lambda *_, **__: found)
    task = Task()
    _train(ChooseThreads(task.network, Compute(), lambda _: 16), task=task)
    assert task.counts == [3, *[fastest] * 5]
    assert torch.get_num_threads() == 3
    (line,) = _lines(caplog)
    assert line.startswith(f"training with {fastest} of 3 CPU threads (ms a step: ")


def _lines(caplog):
    records = (record for record in caplog.records if record.name == "components.shared.threads")
    return [record.getMessage() for record in records]
