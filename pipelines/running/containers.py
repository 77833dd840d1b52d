"""Local runs with each step in its image, through the API of Docker or podman."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler, status

from components.shared.errors import UserError
from components.shared.process import ERROR_PREFIX, cache_folder
from components.shared.tracking.address import sqlite_file

_LABEL = "brainseg.output"  # a container's label: the output folder of its run
_PASSED = ("AWS_", "BRAINSEG_", "KAGGLE_", "MLFLOW_")  # prefixes of the variables that steps get
_PASSED_NAMES = ("KFP_RUN_ID", "OMP_NUM_THREADS", "PYTHONUNBUFFERED")
_CACHE = "/cache"  # the images' BRAINSEG_CACHE
_SHARED_MEMORY = "2g"  # for the data loaders' processes; Docker's default is 64 MB
_WATCH = """
import pathlib, sys
sys.stdin.read()  # returns when the process at the other end is gone
import docker
from pipelines.running.containers import remove_containers
remove_containers(docker.from_env(), pathlib.Path(sys.argv[1]))
"""


@contextlib.contextmanager
def docker_runner(
    images: Iterable[str], arguments: Mapping[str, Any], output: Path
) -> Iterator[local.DockerRunner]:
    """KFP's runner of containers, whose tasks end with their container's log and exit code.

    A container is like a pod: read-only except for /tmp, /cache and mounts. Folders and files in
    the arguments and the environment are mounted under their own paths, the source read-only, the
    cache at /cache. New files belong to the caller. The network is this machine's; GPUs are not
    used.

    Raises:
        UserError: If Docker does not answer, an image is missing or a folder cannot be created.
    """
    with contextlib.closing(_connect()) as client:
        _require(images, client)
        remove_containers(client, output)  # left when the machine went down
        (output / "pipeline").mkdir(parents=True, exist_ok=True)  # Docker would create it as root
        with _handling_tasks(), _ending_with_this_process(output):
            yield local.DockerRunner(
                environment=_variables(),
                mounts=_mounts(arguments),
                user=_user(client),
                network_mode="host",
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},
                shm_size=_SHARED_MEMORY,
                security_opt=["label=disable"],  # otherwise SELinux hides the mounts
                labels={_LABEL: str(output)},
            )


def remove_containers(client: docker.DockerClient, output: Path) -> None:
    """Removes all containers of a run."""
    for container in client.containers.list(all=True, filters={"label": f"{_LABEL}={output}"}):
        container.remove(force=True)


class _Task(docker_task_handler.DockerTaskHandler):  # type: ignore[misc] # kfp has no types
    """A task whose container stays until its log and exit code have been read.

    KFP lets Docker remove the container. If it has ended before KFP asks, KFP reports success
    (`run_docker_container` in kfp/local/docker_task_handler.py of 2.17.0).
    """

    def run(self) -> status.Status:
        try:
            with contextlib.closing(docker.from_env()) as client:
                reason = self._run(client)
        except (DockerException, OSError) as error:  # Docker refuses, or has stopped
            reason = f"Docker failed: {_one_line(error)}"
        if reason:
            print(f"{ERROR_PREFIX}{reason}")  # noqa: T201 - KFP indents the output of a task
        return status.Status.FAILURE if reason is not None else status.Status.SUCCESS

    def _run(self, client: docker.DockerClient) -> str | None:
        """The reason of a failure, empty if it is in the log; `None` after a success."""
        container = client.containers.run(
            self.image,
            self.full_command,
            detach=True,
            environment=self.env_vars,
            volumes=self.get_volumes_to_mount(client),
            **self.runner.container_run_args,
        )
        try:
            for line in _lines(container.logs(stream=True)):
                print(line)  # noqa: T201
            code = container.wait()["StatusCode"]
        finally:
            container.remove(force=True)
        if code:
            return ""
        return None if self._outputs().is_file() else f"it ended without {self._outputs()}"

    def _outputs(self) -> Path:
        """The file of output values, which KFP's executor writes last."""
        executor_input = self.full_command[self.full_command.index("--executor_input") + 1]
        return Path(json.loads(executor_input)["outputs"]["outputFile"])


@contextlib.contextmanager
def _handling_tasks() -> Iterator[None]:
    original = docker_task_handler.DockerTaskHandler
    docker_task_handler.DockerTaskHandler = _Task
    try:
        yield
    finally:
        docker_task_handler.DockerTaskHandler = original


@contextlib.contextmanager
def _ending_with_this_process(output: Path) -> Iterator[None]:
    """Starts a process that removes the containers if this process is killed."""
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(output)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def _connect() -> docker.DockerClient:
    try:
        return docker.from_env()
    except DockerException as error:
        address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        raise UserError(
            f"--runner docker: no Docker answers at {address} ({_one_line(error)}); start it, set "
            "DOCKER_HOST to another address (`podman system service --time=0 "
            "unix:///run/podman/podman.sock` starts podman's), or omit --runner"
        ) from error


def _require(images: Iterable[str], client: docker.DockerClient) -> None:
    for image in sorted(images):
        try:
            client.images.get(image)
        except ImageNotFound as error:
            raise UserError(
                f"--runner docker: image {image} is missing; `make images` builds all"
            ) from error


def _user(client: docker.DockerClient) -> str:
    # In rootless Docker and podman, "root" in a container is the caller.
    if "name=rootless" in client.info().get("SecurityOptions", ()):
        return "0:0"
    return f"{os.getuid()}:{os.getgid()}"


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(_PASSED) and name != "BRAINSEG_CACHE") or name in _PASSED_NAMES
    }


def _mounts(arguments: Mapping[str, Any]) -> list[Mount]:
    uris = (os.environ.get(name, "") for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"))
    # SQLite and the runs write files next to the databases
    databases = [str(file.parent) for uri in uris if (file := sqlite_file(uri))]
    created = [str(arguments.get("store", "")), *databases]
    for path in filter(Path.is_absolute, map(Path, [*created, str(cache_folder())])):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder {path} cannot be created: {error.strerror}") from error
    read = [str(arguments.get("source", "")), *_variables().values()]
    written = [str(value) for name, value in arguments.items() if name != "source"]
    places = dict.fromkeys(_places(read), True) | dict.fromkeys(_places(written + created), False)
    cache = Mount(_CACHE, str(cache_folder()), type="bind")
    return [cache, *(Mount(each, each, "bind", places[each]) for each in sorted(places))]


def _places(values: Iterable[str]) -> Iterator[str]:
    return (value for value in values if Path(value).is_absolute() and os.path.exists(value))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of a log that arrives in arbitrary pieces."""
    partial = b""
    for piece in pieces:
        *lines, partial = (partial + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if partial:
        yield partial.decode(errors="replace")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
