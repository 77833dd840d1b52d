import contextlib
import gc
import hashlib
import os
import shutil
import signal
import tempfile
import uuid
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from components.shared.dataset.manifest import ChannelIntensity, VolumeEntry, make_manifest
from components.shared.errors import UserError
from components.shared.reading.sources.synthetic import write_synthetic
from components.shared.storage.s3 import connect, explain_s3_errors
from tests.sharing import once, run_folder

# threads that wait for each other on a busy machine do not spin: before torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


# a fifth of the imports would be garbage collection; what they leave stays to the end
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """Collects garbage from here on, and spares what the imports have left."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    """Lets libraries that look at the end find everything freed."""
    gc.unfreeze()


def pytest_configure(config):
    """Lets a test run that is ended by SIGTERM clean up as it does after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Runs whole chains first: no idle worker then takes half of a module that shares one."""
    items.sort(key=lambda item: "pipelines" not in item.path.parts)


settings.register_profile("fast", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("fast")


@pytest.fixture
def s3_store_uri():
    """A store in a fresh bucket of the S3 server that the environment names; skips without one."""
    if not (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")):
        pytest.skip("no S3 server: AWS_ENDPOINT_URL is not set")
    environment = dict(os.environ)
    client, bucket = connect(), f"brainseg-test-{uuid.uuid4().hex[:12]}"
    try:
        with explain_s3_errors("S3", bucket):
            client.make_bucket(bucket)
    except UserError as error:
        pytest.skip(f"no S3 server: {error}")
    yield f"s3://{bucket}/some/prefix"
    with mock.patch.dict(os.environ, environment):  # a test may have changed the keys
        _remove(client, bucket)


def _remove(client, bucket):
    for item in client.list_objects(bucket, recursive=True):
        client.remove_object(bucket, item.object_name)
    client.remove_bucket(bucket)


@pytest.fixture(scope="session")
def make_mlflow(tmp_path_factory):
    """Makes a local MLflow in a folder and returns its URI.

    Its database is a copy of one that is made once for all tests, which takes MLflow 2 s.
    """

    def make(folder: Path) -> str:
        from mlflow import MlflowClient

        from components.shared.tracking.local import ensure_local

        empty = once(
            run_folder(tmp_path_factory) / "empty-mlflow.db",
            lambda path: MlflowClient(f"sqlite:///{path}"),
        )
        shutil.copyfile(empty, folder / "mlflow.db")
        ensure_local(uri := f"sqlite:///{folder}/mlflow.db")
        return uri

    return make


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory):
    """Six made-up patients in the layout of the real data; not to be changed."""
    return write_synthetic(tmp_path_factory.mktemp("synthetic"), patients=6, seed=0)


@pytest.fixture(scope="session")
def write_volume():
    """Writes the files of one small volume of noise with a tumour."""

    def write(top, name, slices=3, side=16, seed=None):
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) if seed is None else seed
        random = np.random.default_rng(seed)
        folder = Path(top) / name
        folder.mkdir(parents=True)
        for number in range(1, slices + 1):
            image = random.integers(0, 256, (side, side, 3), np.uint8)
            mask = np.zeros((side, side), np.uint8)
            mask[2:6, 3:7] = 255 * (number == 2)
            tifffile.imwrite(folder / f"{name}_{number}.tif", image, photometric="rgb")
            tifffile.imwrite(folder / f"{name}_{number}_mask.tif", mask)
        return folder

    return write


@pytest.fixture
def public_path():
    """Like `tmp_path`, but other users may look into it: for tests of permissions."""
    path = Path(tempfile.mkdtemp(prefix="brainseg-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def without_root():
    """A context in which root has no more rights than any user."""

    @contextlib.contextmanager
    def nobody():
        if os.geteuid() != 0:
            yield
            return
        os.setresuid(65534, 65534, 0)  # os.access asks for the real user, not the effective one
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)

    return nobody


@pytest.fixture(scope="session")
def make_entry():
    return simulate_entry


@pytest.fixture(scope="session")
def make_data():
    return simulate_manifest


def simulate_entry(number, **changes):
    """A volume's entry in a manifest, of a patient who was never scanned."""
    random = np.random.default_rng(number)
    site = changes.get("site", "CS")
    patient = changes.get("patient", f"TCGA_{site}_{number:04d}")
    slices = int(random.integers(20, 80))
    values = {
        "volume": f"{patient}_19990101",
        "patient": patient,
        "site": site,
        "date": "19990101",
        "digest": hashlib.sha256(f"volume {number}".encode()).hexdigest(),
        "image_digest": hashlib.sha256(f"image {number}".encode()).hexdigest(),
        "slices": slices,
        "height": 256,
        "width": 256,
        "tumour_pixels": int(random.gamma(2, 10_000)),
        "tumour_slices": slices // 3,
        "missing": (),
        "intensity": tuple(
            ChannelIntensity(mean=30 + p50, p1=0, p50=p50, p99=150 + p50)
            for p50 in map(int, random.integers(0, 40, 3))
        ),
        "attributes": {
            "histological_type": float(random.integers(1, 4)),
            "age_at_initial_pathologic": float(random.integers(20, 75)),
            "RPPACluster": None,
        },
    }
    return VolumeEntry(**(values | changes))


def simulate_manifest(patients, **changes):
    """A data set of patients at five sites of very different size, without voxels."""
    sites = np.random.default_rng(patients).choice(
        ["CS", "DU", "EZ", "FG", "HT"], patients, p=[0.15, 0.4, 0.01, 0.13, 0.31]
    )
    return make_manifest(
        simulate_entry(number, **({"site": str(site)} | changes))
        for number, site in enumerate(sites)
    )
