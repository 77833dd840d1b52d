"""Patients as files, and a model."""

import contextlib

import numpy as np
import pytest
import tifffile

from components.shared.storage.store import FolderStore


@pytest.fixture
def write_scan():
    """Writes a volume in the layout of the real data set."""

    def write(folder, volume, name="TCGA_CS_0001_19990101", masks=True):
        folder = folder / name
        folder.mkdir(parents=True)
        for number, (image, mask) in enumerate(
            zip(volume.image, volume.mask, strict=True), start=1
        ):
            tifffile.imwrite(folder / f"{name}_{number}.tif", image, photometric="rgb")
            if masks:
                tifffile.imwrite(folder / f"{name}_{number}_mask.tif", mask * np.uint8(255))
        return folder

    return write


@pytest.fixture
def register(local_mlflow, threshold_model):
    """Registers a threshold as the next version of a model, and returns its URI."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def register(name, level=150):
        client = MlflowClient()
        with contextlib.suppress(MlflowException):  # it has a version
            client.create_registered_model(name)
        version = client.create_model_version(name, source=str(threshold_model(level)))
        client.set_registered_model_alias(name, "champion", version.version)
        return f"models:/{name}/{version.version}"

    return register


@pytest.fixture
def incoming(tmp_path, write_scan, make_blob):
    """A folder of three new patients without labels."""
    folder = tmp_path / "incoming"
    for number, site in enumerate(("CS", "DU", "FG"), start=1):
        name = f"TCGA_{site}_{number:04d}_19990101"
        write_scan(folder, make_blob(number), name, masks=False)
    return folder


class Interrupted(BaseException):
    """A killed process, as its code sees it: no handler of exceptions runs."""


class DyingStore(FolderStore):
    """A store whose process is killed at its n-th write."""

    def __init__(self, root, writes):
        super().__init__(root)
        self.left = writes

    def write(self, key, data):
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        super().write(key, data)
