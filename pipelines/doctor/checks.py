"""Checks of this machine and its settings."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.doctor import installation, machine, services
from pipelines.doctor.check import Check
from pipelines.doctor.weights import check_weights


def run_checks(store_uri: str, weights: Sequence[str] = (), *, deep: bool = False) -> list[Check]:
    """Check everything that a run needs, in some seconds; `deep` stores a large file in MLflow.

    `weights` are the sources of those that the networks start from.
    """
    return [
        services.check_store(store_uri),
        services.check_mlflow(deep=deep),
        *([check_weights(store_uri, weights)] if weights else []),
        *machine.check_disks(store_uri, os.environ.get("MLFLOW_TRACKING_URI", "")),
        machine.check_memory(),
        machine.check_shared_memory(Path("/dev/shm")),
        machine.check_device(),
        installation.check_python(),
        installation.check_packages(),
    ]
