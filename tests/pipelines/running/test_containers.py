"""Steps in real containers; skipped where there are no images, or images of other code."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound
from kfp import dsl

from components.shared.errors import UserError
from components.shared.step import DATA_IMAGE, TRAINER_IMAGE, data_step
from pipelines.running.local import LocalRun, run_locally
from tests.pipelines import graphs

_CHAIN = ("--source", "synthetic:8,seed=3", "--preset", "demo", "--json")
_SETTINGS = (
    "train.network.image_size=32",
    "train.schedule.epochs=2",
    "train.compute.threads=1",
    "register.min_patient_dice=0",
)


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Where Docker answers: DOCKER_HOST, else podman's service, which is started for this."""
    if os.environ.get("DOCKER_HOST"):
        yield os.environ["DOCKER_HOST"]
        return
    if not (podman := shutil.which("podman")):
        pytest.skip("no Docker: DOCKER_HOST is not set and podman is not installed")
    socket = tmp_path_factory.mktemp("podman") / "socket"
    service = subprocess.Popen([podman, "system", "service", "--time=0", f"unix://{socket}"])
    deadline = time.monotonic() + 10
    while not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield f"unix://{socket}"
    service.terminate()
    service.wait()


@pytest.fixture
def engine(address, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", address)
    with contextlib.closing(docker.from_env()) as client:
        yield client


@pytest.fixture
def images(engine):
    """The engine, if it has the data image."""
    _skip_without(engine, DATA_IMAGE)
    return engine


def _skip_without(engine, image):
    try:
        labels = engine.images.get(image).labels
    except ImageNotFound:
        pytest.skip(f"no image {image}: `make images`")
    revision = labels.get("org.opencontainers.image.revision", "")
    changed = subprocess.run(
        ["git", "diff", "--quiet", revision, "--", "components", "images"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
    )
    if changed.returncode:
        pytest.skip(f"image {image} is of other code (revision {revision!r}): `make images`")


_WAIT = """
import pathlib, sys
from pipelines.running.local import LocalRun, run_locally
from tests.pipelines.running.test_containers import waiting
run_locally(LocalRun(waiting, {}, pathlib.Path(sys.argv[1]), runner="docker"))
"""


def _wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.2)


def _run(graph, arguments, output):
    return run_locally(LocalRun(graph, arguments, output, runner="docker"))


def _left(engine, output):
    return engine.containers.list(all=True, filters={"label": f"brainseg.output={output}"})


@data_step
def vanish() -> str:
    import os

    os._exit(0)  # as if all were well, before KFP's executor has written anything


@dsl.pipeline(name="vanishing")
def vanishing() -> str:
    return graphs.say(text=vanish().output).output


@data_step
def wait_long():
    import time

    print("waiting", flush=True)
    time.sleep(100)


@dsl.pipeline(name="waiting")
def waiting():
    wait_long()


@data_step
def touch(folder: str):
    import pathlib

    pathlib.Path(folder, "new").touch()


@dsl.pipeline(name="touching")
def touching(source: str = "", store: str = ""):
    """Writes to the source if there is one, and to the store."""
    with dsl.If(source != ""):
        touch(folder=source)
    touch(folder=store)


@dsl.pipeline(name="crashing")
def crashing():
    graphs.crash()


def test_without_docker_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
    with pytest.raises(UserError, match=f"no Docker answers at unix://{tmp_path}/socket .*podman"):
        _run(graphs.described, {"source": "synthetic:2", "store": f"{tmp_path}/s"}, tmp_path / "o")
    assert not (tmp_path / "s").exists()


def test_an_image_that_is_not_there(engine, tmp_path):
    @dsl.component(base_image="brainseg-other-python:9", install_kfp_package=False)
    def nothing():
        pass

    @dsl.pipeline(name="missing")
    def missing():
        nothing()

    with pytest.raises(UserError, match="brainseg-other-python:9 is missing; `make images`"):
        _run(missing, {}, tmp_path)


def test_the_same_ids_and_files_as_without_docker(images, tmp_path, synthetic_folder):
    settings = {"source": str(synthetic_folder), "profile_settings": "min_patients: 3"}
    found = []
    for runner in ("subprocess", "docker"):
        arguments = {**settings, "store": str(tmp_path / runner / "store")}
        run = LocalRun(graphs.described, arguments, tmp_path / runner / "out", runner)
        found.append(run_locally(run))
    plain, contained = found
    assert plain["dataset_id"] == contained["dataset_id"]
    one, two = (Path(result["reports"]["manifest"]) for result in found)
    assert one.read_bytes() == two.read_bytes()
    assert _left(images, tmp_path / "docker" / "out") == []
    owners = {path.stat().st_uid for path in (tmp_path / "docker").rglob("*")}
    assert owners == {os.getuid()}


def test_a_steps_own_message_is_told(images, tmp_path):
    with pytest.raises(UserError, match="step ingest: source /nowhere"):
        _run(graphs.described, {"source": "/nowhere", "store": f"{tmp_path}/s"}, tmp_path / "o")


@pytest.mark.parametrize("attempt", range(3))
def test_a_step_that_crashes_at_once_is_seen(images, tmp_path, attempt):
    # KFP's own handler takes a container that is gone for a success
    with pytest.raises(UserError, match=r"(?s)step crash crashed.*ZeroDivisionError"):
        _run(crashing, {}, tmp_path)


def test_a_success_without_outputs_is_a_failure(images, tmp_path, capfd):
    with pytest.raises(UserError, match=r"step vanish: it ended without .*executor_output\.json"):
        _run(vanishing, {}, tmp_path)
    assert "say" not in capfd.readouterr().err.split()


def test_a_container_that_is_removed_is_a_failure(images, tmp_path):
    def remove():
        while not (found := _left(images, tmp_path)):
            time.sleep(0.1)
        found[0].remove(force=True)

    thread = threading.Thread(target=remove)
    thread.start()
    with pytest.raises(UserError, match="step wait-long"):
        _run(waiting, {}, tmp_path)
    thread.join()


def test_containers_end_with_a_killed_run(images, tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", _WAIT, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_for(lambda: _left(images, tmp_path) or run.poll() is not None)
    run.kill()
    run.wait()
    _wait_for(lambda: not _left(images, tmp_path))


def test_what_a_killed_run_left_is_ended(images, tmp_path):
    images.containers.run(
        DATA_IMAGE, ["sleep", "1000"], detach=True, labels={"brainseg.output": str(tmp_path)}
    )
    with pytest.raises(UserError, match="step crash"):
        _run(crashing, {}, tmp_path)
    assert _left(images, tmp_path) == []


def test_the_source_is_read_only_and_the_store_is_not(images, tmp_path):
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    _run(touching, {"store": str(store)}, tmp_path / "out")
    assert (store / "new").exists()
    with pytest.raises(UserError, match="Read-only file system"):
        _run(touching, {"store": str(store), "source": str(source)}, tmp_path / "out")
    assert list(source.iterdir()) == []


def test_the_whole_chain_has_the_same_metrics(engine, tmp_path, brainseg):
    _skip_without(engine, TRAINER_IMAGE)
    changes = [part for change in _SETTINGS for part in ("--set", change)]
    results = {}
    for runner in ("subprocess", "docker"):
        (tmp_path / runner).mkdir()
        done = brainseg(
            *("run", *_CHAIN, *changes, "--runner", runner),
            cwd=tmp_path / runner,
            DOCKER_HOST=os.environ["DOCKER_HOST"],
        )
        assert done.returncode == 0, done.stderr
        results[runner] = json.loads(done.stdout)
    plain, contained = results["subprocess"], results["docker"]
    for name in ("dataset_id", "split_id", "metrics", "promoted"):
        assert plain[name] == contained[name]
