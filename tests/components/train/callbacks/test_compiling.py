import shutil
from types import SimpleNamespace

import pytest
import torch

from components.shared.model.network import build_segmenter
from components.train.callbacks import compiling
from components.train.callbacks.compiling import CompileNetwork
from components.train.task import SegmentationTask
from tests.components.train.conftest import assert_same_fit

SMALL = {
    "architecture": "plain_unet",
    "encoder_weights": "none",
    "encoder_depth": 3,
    "decoder_channels": None,
    "image_size": 32,
}


@pytest.fixture(autouse=True)
def _no_programs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def trained(train, make_recipe):
    def trained(**compute):
        recipe = make_recipe(
            network=SMALL,
            compute={"precision": "32-true", "device": "cpu", "threads": 1, **compute},
            schedule={"epochs": 2},
        )
        return train(recipe, f"compile-{recipe.compute.compile}")

    return trained


@pytest.fixture
def told(caplog):
    """What the training says of it."""
    return lambda: [line.getMessage() for line in caplog.records if line.name == compiling.__name__]


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ on a CPU")
def test_a_compiled_network_learns_the_same(trained, told):
    plain, compiled = trained(), trained(compile=True)
    assert not told()
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert other["train_loss"] != one["train_loss"]  # it was another program


def test_without_a_compiler_the_training_says_so_and_learns_without(trained, told, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/g++"))
    assert_same_fit(trained(compile=True), trained())
    (line,) = told()
    assert line.startswith("training without torch.compile: ")
    assert "No working C++ compiler" in line


def test_several_processes_learn_without(make_recipe, told):
    recipe = make_recipe(network=SMALL)
    task = SegmentationTask(
        build_segmenter(recipe.network),
        recipe,
        micro_batch=2,
    )
    callback, batch = CompileNetwork(lambda _: 32), (torch.zeros(2, 9, 32, 32),)
    for number in range(2):
        callback.on_train_batch_start(SimpleNamespace(world_size=2), task, batch, number)
    assert told() == ["training without torch.compile: several processes train together"]
