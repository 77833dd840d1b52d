import json
import os
import pickle
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from components.train.checkpoints import Checkpoints
from components.train.processes import is_writer, rank, trainer_arguments


def test_a_process_alone_writes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "3")  # of something else than torchrun
    assert (rank(), is_writer(), trainer_arguments()) == (0, True, {"devices": 1})


def test_torchrun_tells_each_process_its_place(monkeypatch):
    names = {"TORCHELASTIC_RUN_ID": "a", "RANK": "5", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**names, "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert (rank(), is_writer()) == (5, False)
    assert trainer_arguments() == {"devices": 4, "num_nodes": 2, "strategy": "ddp"}


@pytest.fixture
def ranks(make_recipe, dataset, tmp_path):
    """What two processes tell of one training."""
    recipe = make_recipe(schedule={"epochs": 3}, sampling={"batch_size": 2})
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
        assert process.wait(timeout=300) == 0, log.read_text()
    finally:
        if process.poll() is None:  # the processes that torchrun started end with it
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    return [json.loads((tmp_path / f"rank-{number}.json").read_text()) for number in range(2)]


def test_two_processes_train_one_model(ranks, dataset, tmp_path):
    one, two = ranks
    _assert_slices_differ(one["epochs"], two["epochs"])
    assert len({*one["seeds"], *two["seeds"]}) == len(one["seeds"]) + len(two["seeds"])
    assert one["seeds"] == list(range(len(one["seeds"])))  # those of a process alone
    assert one["weights"] == two["weights"]
    assert (one["writes"], two["writes"]) == (True, False)
    assert (one["told"], two["told"]) == ([1, 2, 3], [])
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
