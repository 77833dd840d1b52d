"""Files and servers that the processes of one test run make once and share."""

import fcntl
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

_SUPERVISOR = Path(__file__).with_name("supervised_server.py")
_START_S = 600.0


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole test run, which the workers of pytest-xdist have in common."""
    base = factory.getbasetemp()
    return base.parent if _is_worker() else base


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """Makes a file or folder in the first process that asks; the others wait for it.

    Args:
        path: Path to be made, in the folder of the test run.
        make: Called with another path, which takes this one's place once `make` returns.
    """
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_name(f".{path.name}-{os.getpid()}")
            make(part)
            part.rename(path)
    return path


def serve(folder: Path, port: int, command: list[str]) -> None:
    """Starts a server that ends when the test run ends, however that ends.

    Args:
        folder: Made here; the server's working folder, with its log.
        port: Loopback port at whose path /health the server answers.
        command: Program and arguments.
    """
    folder.mkdir()
    session = os.getppid() if _is_worker() else os.getpid()
    # MLflow's job runner is eight more processes
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, str(_SUPERVISOR), str(session), *command],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            return
        time.sleep(0.2)
    pytest.fail(f"the server did not start: {(folder / 'log').read_text()}")


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ
