"""torch runs out of memory from a number of slices on."""

import ctypes
import itertools
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from components.shared.errors import UserError
from components.train.task import SegmentationTask
from tests.components.train.conftest import Interruption, assert_same_fit

_TOLD = {"capture_output": True, "text": True, "check": True}
_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")
_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture
def shortage(monkeypatch):
    """Lets steps of many slices fail, after some that do not."""
    step = SegmentationTask.training_step

    def begin(*, after_steps=0, slices=4, error=_GPU):
        batches = itertools.count()

        def failing_step(self, batch, index):
            if len(batch[0]) >= slices and next(batches) >= after_steps:
                raise error
            return step(self, batch, index)

        monkeypatch.setattr(SegmentationTask, "training_step", failing_step)

    return begin


class Batches(Callback):
    """Keeps the slices of each batch, by step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(batch[2][:, 0].tolist())


def _warnings(caplog):
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("error", [_GPU, _CPU])
def test_a_training_goes_on_with_half_the_slices_at_once(
    train, make_recipe, shortage, caplog, error
):
    short = {"epochs": 2}
    halved = train(make_recipe(sampling={"accumulate": 2}, schedule=short), "halved")
    shortage(after_steps=2, error=error)
    assert_same_fit(halved, train(make_recipe(schedule=short), "short"))
    assert _warnings(caplog) == [
        "out of memory with 4 slices at once; continuing from the start with 2 "
        "(train.sampling.accumulate=2: a step still has 4)"
    ]


def test_it_goes_on_from_the_newest_state(train, make_recipe, shortage, caplog):
    recipe = make_recipe(schedule={"epochs": 2})
    whole = Batches()
    train(recipe, "whole", callbacks=[whole])
    steps = len(whole.seen) // recipe.schedule.epochs
    caplog.clear()
    shortage(after_steps=steps + 1)
    seen = Batches()
    train(recipe, "short", callbacks=[seen])
    assert "continuing from epoch 1 with 2 " in caplog.text
    halves = seen.seen[steps + 1 :]
    assert {len(half) for half in halves} == {2}
    pairs = [one + other for one, other in zip(halves[::2], halves[1::2], strict=True)]
    assert pairs == whole.seen[steps:]


def test_another_attempt_keeps_the_smaller_micro_batches(train, make_recipe, shortage, caplog):
    """It would be another model, or fail once more, depending on who else needs memory."""
    recipe = make_recipe(schedule={"epochs": 2})

    def interrupt(epoch):
        if epoch["epoch"] == 1:
            raise Interruption

    shortage()
    with pytest.raises(Interruption):
        train(recipe, "short", interrupt)
    shortage(slices=99)
    seen = Batches()
    train(recipe, "short", callbacks=[seen])
    assert {len(batch) for batch in seen.seen} == {2}
    shortage(slices=2)
    with pytest.raises(UserError, match="out of memory with 2 slices at once"):
        train(recipe, "other")
    assert len(_warnings(caplog)) == 2


def test_the_second_time_it_says_what_to_do(train, make_recipe, shortage, caplog):
    shortage(slices=1)
    with pytest.raises(UserError) as caught:
        train(make_recipe(sampling={"batch_size": 8}), "short")
    message = str(caught.value)
    assert message.startswith(
        "out of memory with 4 slices at once (train.sampling.batch_size=8, accumulate=2); raise "
        "train.sampling.accumulate"
    )
    for setting in ("accumulate", "batch_size"):
        assert hasattr(make_recipe().sampling, setting)
    assert hasattr(make_recipe().network, "image_size")
    assert len(_warnings(caplog)) == 1


def test_what_cannot_be_halved_is_told_at_once(train, make_recipe, shortage, caplog):
    shortage(slices=1)
    with pytest.raises(UserError, match="out of memory with 3 slices at once"):
        train(make_recipe(sampling={"batch_size": 3}), "odd")
    assert _warnings(caplog) == []


def test_other_errors_are_not_of_the_memory(train, recipe, shortage):
    shortage(error=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(recipe, "broken")


_PAGES = """
import resource
import torch
from components.train.memory import keep_freed_memory

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def pages_of_steps():
    for _ in range(4):  # small objects find their places, and the heap its size
        torch.ones(2**23)
    before = pages()
    for _ in range(4):
        torch.ones(2**23)
    return pages() - before

print(pages_of_steps())
keep_freed_memory()
print(pages_of_steps())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is another")
def test_memory_that_a_step_frees_serves_the_next_one():
    told = subprocess.run([sys.executable, "-c", _PAGES], **_TOLD).stdout
    given, kept = map(int, told.split())
    assert kept < given / 10
