"""Checks of this machine and its settings."""

import os
from pathlib import Path

from pipelines.doctor.check import Check
from pipelines.doctor.installation import check_packages, check_python
from pipelines.doctor.machine import (
    check_device,
    check_disks,
    check_memory,
    check_shared_memory,
)
from pipelines.doctor.services import check_mlflow, check_store


def run_checks(store_uri: str) -> list[Check]:
    """Check everything that a run needs, in some seconds."""
    return [
        check_store(store_uri),
        check_mlflow(),
        *check_disks(store_uri, os.environ.get("MLFLOW_TRACKING_URI", "")),
        check_memory(),
        check_shared_memory(Path("/dev/shm")),
        check_device(),
        check_python(),
        check_packages(),
    ]
