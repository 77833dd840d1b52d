import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def brainseg():
    """Runs the command as a user does, in a folder of its own and without foreign settings."""

    def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env=clean_environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("brainseg")), *arguments]


def clean_environment(**variables: str) -> dict[str, str]:
    foreign = ("MLFLOW_", "KFP_", "BRAINSEG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, **variables}


@pytest.fixture
def requires(monkeypatch):
    """Gives the distribution other requirements than its own."""
    return lambda *lines: monkeypatch.setattr(metadata, "requires", lambda name: list(lines))
