"""A served threshold, in this process."""

import io
import multiprocessing
import zipfile

import numpy as np
import pytest
import tifffile
from starlette.testclient import TestClient

from pipelines.serving.app import build_app
from pipelines.serving.loaded import ServedModel
from pipelines.serving.settings import ServeSettings
from tests.components.threshold_model import write_threshold_model

NAME = "TCGA_CS_0001_19990101"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A model folder; the threshold is 150."""
    folder = tmp_path_factory.mktemp("served") / "model"
    write_threshold_model(folder, 150)
    return folder


@pytest.fixture(scope="session")
def served(folder):
    return ServedModel(str(folder), ServeSettings(device="cpu"))


@pytest.fixture(scope="module", autouse=True)
def forkserver():
    """Readers start as in the server: a fork of a process with threads may hang."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(
        ["pipelines.serving.upload", "pipelines.serving.tensors"]
    )
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def connect(served):
    """Opens a client of a server with other settings."""
    opened = []

    def connect(model=served, **settings):
        app = build_app(model, ServeSettings(device="cpu", **settings))
        client = TestClient(app, raise_server_exceptions=False)
        opened.append(client.__enter__())
        return client

    yield connect
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def image():
    """Voxels whose FLAIR is above the threshold in a box."""
    values = np.random.default_rng(1).integers(1, 100, (5, 32, 40, 3), dtype=np.uint8)
    values[2:4, 8:20, 10:30, 1] = 220
    return values


@pytest.fixture
def zipped(image):
    return zip_of({f"{NAME}/{NAME}_{n}.tif": tiff(each) for n, each in enumerate(image, 1)})


def tiff(pixels):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, photometric="rgb")
    return stream.getvalue()


def zip_of(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()
