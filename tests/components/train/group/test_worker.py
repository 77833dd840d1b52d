"""Two pods of a group, each a worker process with all that it starts, on this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.shared.process import MISTAKE_STATUS
from components.shared.storage.store import open_store
from components.train.exit_codes import PREEMPTED_STATUS
from components.train.group.result import fetch_result, find_result, group_folder


class Pod:
    """A pod's processes; they end together, as in a container."""

    def __init__(self, number, task, folder, environment):
        self.log = folder / f"pod-{number}-{time.monotonic_ns()}.log"
        with open(self.log, "w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "components.train.group.worker", task.model_dump_json()],
                env={**environment, "JOB_COMPLETION_INDEX": str(number)},
                stdout=stream,
                stderr=stream,
            )

    def terminate(self):
        self.process.terminate()
        return self.process.wait(600)

    def kill(self):
        """Stops all first, so that none starts another one meanwhile."""
        found = [self.process.pid, *_below(self.process.pid)]
        for pid in found:
            _send(pid, signal.SIGSTOP)
        for pid in {*found, *_below(self.process.pid)}:
            _send(pid, signal.SIGKILL)
        self.process.wait(300)

    def until(self, text, timeout_s=1200):
        end = time.monotonic() + timeout_s
        while not (found := re.search(text, self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)
        return found


def _send(pid, number):
    if Path(f"/proc/{pid}").exists():
        os.kill(pid, number)


def _below(pid):
    children = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        children += map(int, listed.read_text().split())
    return [each for child in children for each in (child, *_below(child))]


@pytest.fixture
def environment(tmp_path, make_mlflow):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "BRAINSEG_GROUP_PODS": "2",
        "BRAINSEG_GROUP_PROCESSES": "1",
        "BRAINSEG_GROUP_GRACE_S": "60",
        "BRAINSEG_GROUP_MASTER": f"localhost:{port}",
        "BRAINSEG_CACHE": str(tmp_path / "cache"),
        "MLFLOW_TRACKING_URI": make_mlflow(tmp_path),
    }


@pytest.fixture
def start(tmp_path, environment):
    pods = []

    def start(number, task):
        pods.append(Pod(number, task, tmp_path, environment))
        return pods[-1]

    yield start
    for pod in pods:
        if pod.process.poll() is None:
            pod.kill()


@pytest.mark.slow
def test_pods_that_are_ended_or_killed_are_replaced_and_the_training_goes_on(
    start, make_task, tmp_path
):
    task = make_task(schedule={"epochs": 16}, sampling={"batch_size": 2})
    first, second = start(0, task), start(1, task)
    first.until("epoch 2 of 16")
    assert second.terminate() == PREEMPTED_STATUS  # a spot node is taken away
    epoch = first.until(r"ended by SIGTERM: another attempt continues after epoch (\d+) of 16")[1]
    second = start(1, task)
    first.until(rf"resuming after epoch {epoch} of 16 ")
    first.until("epoch 6 of 16")
    first.kill()  # a node is lost, with the meeting point of all
    first = start(0, task)
    first.until("resuming after epoch")
    assert (first.process.wait(300), second.process.wait(60)) == (0, 0), first.log.read_text()

    store, folder = open_store(task.store), group_folder(task.training)
    model, history = tmp_path / "out" / "model", tmp_path / "out" / "history.json"
    fetch_result(store, folder, find_result(store, folder), model=model, history=history)
    assert [epoch["epoch"] for epoch in json.loads(history.read_text())["epochs"]] == list(
        range(1, 17)
    )
    assert (model / "MLmodel").is_file()


@pytest.mark.slow
def test_a_mistake_ends_all_pods_with_its_status(start, make_task):
    task = make_task(optimizer={"learning_rate": 1.0}, network={"encoder": "no-such-encoder"})
    first, second = start(0, task), start(1, task)
    assert {first.process.wait(120), second.process.wait(120)} == {MISTAKE_STATUS}
    assert "no-such-encoder" in first.log.read_text()
