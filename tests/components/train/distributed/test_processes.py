import copy
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file

from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.model.network import build_segmenter
from components.train.checkpoints import Checkpoints
from components.train.distributed.launch import LAUNCH_ID
from components.train.distributed.processes import is_writer, rank, trainer_arguments
from components.train.exit_codes import LOST_STATUS, PREEMPTED_STATUS
from components.train.group.member import GLOO_WORDS
from components.train.recipe import Sampling
from tests.components.train import two_processes
from tests.components.train.conftest import ball_volume
from tests.components.train.two_processes import Record

_TORCHRUN = {"TORCHELASTIC_RUN_ID": "of-others", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
_SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "1", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "3"},
        {"LOCAL_RANK": "1"},
        {**_TORCHRUN, "RANK": "3", "LOCAL_RANK": "3", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        _SLURM,
        {**_SLURM, "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODELIST": "a"},
        {**_SLURM, "SLURM_JOB_NAME": "bash"},  # an interactive shell
    ],
)
def test_processes_that_others_started_are_ignored(monkeypatch, variables):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    trainer = lightning.Trainer(
        **trainer_arguments(), accelerator="cpu", logger=False, enable_checkpointing=False
    )
    assert (rank(), is_writer()) == (0, True)
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank) == (1, 0, 0)
    assert trainer.is_global_zero


def test_the_agent_sets_each_process_its_place(monkeypatch):
    names = {"TORCHELASTIC_RUN_ID": LAUNCH_ID, "RANK": "5", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**names, "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert (rank(), is_writer()) == (5, False)
    arguments = trainer_arguments()
    assert isinstance(arguments.pop("strategy"), DDPStrategy)
    assert isinstance(arguments.pop("plugins")[0], TorchElasticEnvironment)
    assert arguments == {"devices": 4, "num_nodes": 2}


@pytest.fixture
def dataset(store, publish, tmp_path):
    """Three volumes to validate: the processes cannot share them out evenly."""
    volumes = publish(store, [ball_volume(seed) for seed in range(7)])
    split = make_split(
        {
            "train": volumes.volumes[:3],
            "validation": volumes.volumes[3:6],
            "test": volumes.volumes[6:],
        }
    )
    return SplitDataset(store, tmp_path / "cache", volumes, split)


_FREEZE_THEN_TUNE = (
    {"freeze_encoder": True, "image_size": 32},
    {"length": 2, "encoder_factor": 0.5},
)


@pytest.fixture
def recipes(make_recipe):
    """One that takes a step at once, and one with all that acts between processes and steps.

    That is: micro-batches, a frozen encoder at first, Muon, averaged weights.

    With a small rate, and a network that normalises over many pixels: AdamW makes a whole step of
    a gradient that is only rounding, and the curves would part.
    """
    network = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": (16, 16, 8)}
    return [
        make_recipe(
            network={**network, "image_size": 64},
            sampling={"batch_size": 4, "accumulate": accumulate},
            augmentation={"carvemix_prob": 0.5},
            optimizer={"learning_rate": 1e-4, **optimizer},
            schedule={"epochs": 3, "phases": phases},
        )
        for accumulate, phases, optimizer in (
            (1, ({},), {"gradient_clip": 0.5}),
            (2, _FREEZE_THEN_TUNE, {"method": "muon", "ema_decay": 0.5}),
        )
    ]


@pytest.fixture
def ranks(recipes, dataset, tmp_path):
    """Results of the trainings of two processes."""
    (tmp_path / "task.pickle").write_bytes(pickle.dumps((*recipes, dataset)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--rdzv-id={LAUNCH_ID}"]
    script = Path(two_processes.__file__)
    log = tmp_path / "log"
    with open(log, "w") as stream:
        process = subprocess.Popen(
            [*command, str(script), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        assert process.wait(timeout=600) == 0, log.read_text()
    finally:
        if process.poll() is None:  # the processes that torchrun started end with it
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    return [json.loads((tmp_path / f"rank-{number}.json").read_text()) for number in range(2)]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(ranks, recipes, train, dataset, tmp_path):
    """One test, as to start two processes takes long."""
    for name, recipe in zip(("whole", "accumulated"), recipes, strict=True):
        alone = Record()
        fitted = train(recipe, f"alone-{name}", callbacks=[alone])
        _assert_same_curve(copy.deepcopy(ranks[0][name]["history"]), fitted.history)
        _assert_same_weights(load_file(tmp_path / f"{name}-0.safetensors"), alone.last, recipe)
        _assert_shared_out(*(each[name] for each in ranks), alone)
    _assert_one_writes(*ranks)
    parted = [load_file(tmp_path / f"parted-{number}.safetensors") for number in range(2)]
    assert all(torch.equal(value, parted[1][name]) for name, value in parted[0].items())
    assert Checkpoints(dataset.store, "whole", tmp_path / "new").last() is not None
    _assert_validation_is_cut(*ranks)
    _assert_bad_loss_is_reported(*ranks, dataset)
    assert all("batch_size=6 cannot be divided: 2 proc" in each["odd"] for each in ranks)
    assert "to be on GPU" in ranks[0]["refusal"]  # else we needed no batch norm of our own
    halved = recipes[0].model_copy(update={"sampling": Sampling(batch_size=8, accumulate=2)})
    history = train(halved, "alone-half").history
    _assert_short_memory_is_left_to_the_next(*ranks, dataset, history, tmp_path)


def _assert_same_curve(together, alone):
    assert len(together) == len(alone) == 3
    for one, other in zip(together, alone, strict=True):
        dices = [epoch.pop("validation_dice") for epoch in (one, other)]
        assert dices[0] == pytest.approx(dices[1], abs=1e-3)  # a pixel more or less
        assert one == pytest.approx(other, rel=5e-4)  # 1e-4 is seen, by the kernels of a CPU


def _assert_same_weights(together, alone, recipe):
    """But for rounding, running statistics too."""
    torch.manual_seed(recipe.seed)
    before = build_segmenter(recipe.network).network.state_dict()
    for kind in ("weight", "running_mean", "running_var"):
        names = [name for name in before if name.endswith(kind)]
        first, one, other = (
            torch.cat([state[name].flatten() for name in names])
            for state in (before, alone, together)
        )
        apart, moved = float((one - other).norm()), float((one - first).norm())
        assert apart < 0.1 * moved, (kind, apart, moved)


def _assert_shared_out(one, two, alone):
    """Each process sees other slices and volumes than the other, together those of one alone."""
    for mine, other, whole in zip(one["epochs"], two["epochs"], alone.epochs, strict=True):
        assert [index for pair in zip(mine, other, strict=True) for index in pair] == whole
    assert len(one["validated"]) == 3 * 2
    assert len(two["validated"]) == 3 * 1
    assert sorted(one["validated"] + two["validated"]) == sorted(alone.validated)


def _assert_one_writes(one, two):
    assert (one["writes"], two["writes"]) == (True, False)
    assert one["search"] == two["search"]
    assert len(one["search"]["losses"]) == 12
    one, two = one["whole"], two["whole"]
    assert one["weights"] == two["weights"]
    assert (one["reported"], two["reported"]) == ([1, 2, 3], [])
    assert len(one["files"]) >= 2  # those of the newest states
    assert all(name.endswith(".safetensors") for name in two["files"])  # the best, fetched


def _assert_validation_is_cut(one, two):
    """Both end, whichever got the signal, and resume as if nothing had happened."""
    assert one["cut"]["status"] == two["cut"]["status"] == PREEMPTED_STATUS
    assert one["cut"]["epochs"] == one["whole"]["epochs"][1:]
    assert one["cut"]["reported"] == [2, 3]
    assert len(one["cut"]["validated"]) == 2 * 2
    for name in ("weights", "history"):
        assert one["cut"][name] == one["whole"][name]


def _assert_short_memory_is_left_to_the_next(one, two, dataset, alone, folder):
    """The one that lacks it ends, the other loses it; when all meet again they take half."""
    assert two["short"] == LOST_STATUS
    assert any(word in one["short"] for word in GLOO_WORDS)
    assert Checkpoints(dataset.store, "short", folder / "new").is_memory_short()
    _assert_same_curve(one["half"]["history"], alone)
    assert one["shorter"] == two["shorter"]
    assert one["shorter"].startswith("out of memory with 2 slices at once")


def _assert_bad_loss_is_reported(one, two, dataset):
    """By both, with the volumes of both."""
    assert one["bad"] == two["bad"]
    assert "in step 3 (epoch 1, " in one["bad"]
    slices = [entry.volume for entry in dataset.entries("train") for _ in range(entry.slices)]
    batch = [*one["whole"]["epochs"][0][4:6], *two["whole"]["epochs"][0][4:6]]
    assert f"volumes {', '.join(sorted({slices[index] for index in batch}))})" in one["bad"]
