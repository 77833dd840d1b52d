import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file

from components.train.checkpoints import Checkpoints
from components.train.fit import _training_loader
from components.train.network import build_segmenter
from components.train.processes import is_writer, rank, trainer_arguments
from components.train.slices import SliceDataset, prepare_volumes
from components.train.task import SegmentationTask


def test_a_process_alone_writes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "3")  # of something else than torchrun
    assert (rank(), is_writer(), trainer_arguments()) == (0, True, {"devices": 1})


def test_torchrun_tells_each_process_its_place(monkeypatch):
    names = {"TORCHELASTIC_RUN_ID": "a", "RANK": "5", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**names, "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert (rank(), is_writer()) == (5, False)
    arguments = trainer_arguments()
    assert isinstance(arguments.pop("strategy"), DDPStrategy)
    assert arguments == {"devices": 4, "num_nodes": 2}


@pytest.fixture
def recipe(make_recipe):
    return make_recipe(schedule={"epochs": 3}, sampling={"batch_size": 2})


@pytest.fixture
def ranks(recipe, dataset, tmp_path):
    """What two processes tell of one training."""
    (tmp_path / "task.pickle").write_bytes(pickle.dumps((recipe, dataset)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(__file__).with_name("two_processes.py")
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


class BothRanks(SegmentationTask):
    """Does in one process what two do: every other batch is the second one's."""

    _rank = 0

    @property
    def global_rank(self):
        return self._rank

    def training_step(self, batch, index):
        self._rank = index % 2
        return super().training_step(batch, index)


class BothLoaders:
    """The batches of two processes in turn."""

    def __init__(self, volumes, recipe):
        slices = SliceDataset(volumes, recipe.network.context_slices)
        settings = (recipe.sampling, recipe.compute)
        self._loaders = [
            _training_loader(slices, *settings, seed=recipe.seed, rank=rank, ranks=2)
            for rank in (0, 1)
        ]
        self._epoch = 0

    def __len__(self):
        return sum(map(len, self._loaders))

    def __iter__(self):
        for loader in self._loaders:
            loader.sampler.set_epoch(self._epoch)
        self._epoch += 1
        yield from itertools.chain.from_iterable(zip(*self._loaders, strict=True))


def _train_alone(recipe, dataset):
    """The network after a training whose steps take the gradients of two batches together."""
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)
    loader = BothLoaders(prepare_volumes(dataset, "train", segmenter), recipe)
    segmenter = segmenter.to(memory_format=torch.channels_last)
    options = {"augmentation": recipe.augmentation, "optimiser": recipe.optimiser}
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=recipe.schedule.epochs,
        accumulate_grad_batches=2,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BothRanks(segmenter, seed=recipe.seed, **options), loader)
    return segmenter.network


def test_two_processes_learn_what_one_learns_from_both_their_batches(
    ranks, recipe, dataset, tmp_path
):
    """But for rounding; the running statistics of normalisation are of the first one's batches."""
    assert len(ranks[0]["seeds"]) >= 6
    together = load_file(tmp_path / "rank-0.safetensors")
    alone = dict(_train_alone(recipe, dataset).named_parameters())
    before = dict(_untrained(recipe).named_parameters())
    moved = max(float((alone[name] - before[name]).abs().max()) for name in alone)
    apart = max(float((alone[name] - together[name]).abs().max()) for name in alone)
    assert apart < 1e-2 * moved, (apart, moved)


def _untrained(recipe):
    torch.manual_seed(recipe.seed)
    return build_segmenter(recipe.network).network


def test_two_processes_train_one_model(ranks, dataset, tmp_path):
    one, two = ranks
    _assert_slices_differ(one["epochs"], two["epochs"])
    assert len({*one["seeds"], *two["seeds"]}) == len(one["seeds"]) + len(two["seeds"])
    assert one["seeds"] == list(range(len(one["seeds"])))  # those of a process alone
    assert one["weights"] == two["weights"]
    assert (one["writes"], two["writes"]) == (True, False)
    assert (one["told"], two["told"]) == ([1, 2, 3], [])
    assert one["search"] == two["search"]
    assert len(one["search"]["losses"]) == 12
    assert len(one["files"]) >= 2  # those of the newest states
    assert all(name.endswith(".safetensors") for name in two["files"])  # the best, fetched
    assert Checkpoints(dataset.store, "two", tmp_path / "new").last() is not None


def _assert_slices_differ(one, two):
    """Each process sees other slices, and each epoch another order."""
    assert len(one) == len(two) == 3
    for mine, other in zip(one, two, strict=True):
        assert len(mine) == len(other) > 0
        assert not set(mine) & set(other)
        assert len(set(mine)) == len(mine)
    for before, after in [*pairwise(one), *pairwise(two)]:
        assert before != after
