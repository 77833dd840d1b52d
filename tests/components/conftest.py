"""MLflow as users have it: a local file and a server process; and a threshold as a segmenter."""

import itertools
import os
import socket
import sys
import uuid
from unittest import mock

import numpy as np
import pytest

from components.ingest.entry import describe_volume
from components.shared.dataset.channels import LGG_LABELS, LGG_TARGETS, Target
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.volumes import Volume, encode_volume, volume_key
from components.shared.reading.tcga import parse_scan_name
from components.shared.scoring.scores import PATIENT_FIGURES, Masks, PatientScore
from tests.sharing import once, run_folder, serve


@pytest.fixture(scope="session")
def local_mlflow_uri(tmp_path_factory, make_mlflow):
    return make_mlflow(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="session")
def mlflow_server_uri(tmp_path_factory):
    """A server process on a free loopback port, with its own SQLite file; one for all workers."""

    def start(written):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = {
            "--host": "127.0.0.1",
            "--port": str(port),
            "--backend-store-uri": f"sqlite:///{address.with_suffix('.db')}",
            "--artifacts-destination": str(address.with_suffix(".artifacts")),
            "--workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server", *itertools.chain(*options.items())]
        serve(address.with_suffix(".server"), port, command)
        written.write_text(f"http://127.0.0.1:{port}")

    address = run_folder(tmp_path_factory) / "mlflow-address"
    return once(address, start).read_text()


@pytest.fixture
def no_mlflow():
    """No MLflow is set, and what a step sets of it is undone."""
    with mock.patch.dict(os.environ):
        for name in list(os.environ):
            if name.startswith(("MLFLOW_", "BRAINSEG_", "KFP_")):
                del os.environ[name]
        yield


@pytest.fixture
def local_mlflow(no_mlflow, monkeypatch, local_mlflow_uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_mlflow_uri)


@pytest.fixture(params=["local", pytest.param("server", marks=pytest.mark.slow)])
def any_mlflow(request, no_mlflow, monkeypatch):
    """Runs a test with the local file; in the slow lane also with a server.

    Tests that need both in the fast lane are marked with `BOTH_MLFLOWS`.
    """
    name = "local_mlflow_uri" if request.param == "local" else "mlflow_server_uri"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue(name))


BOTH_MLFLOWS = pytest.mark.parametrize("any_mlflow", ["local", "server"], indirect=True)


REGIONS = tuple(
    Target(name=name, labels=labels)
    for name, labels in {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}.items()
)
"""Targets of BraTS, one inside the other."""

REGION_FORM = {"labels": {"necrosis": 1, "edema": 2, "enhancing": 3}, "targets": REGIONS}
"""Form of a manifest with these targets."""


class Answering:
    """A segmenter of tests: a function of an image and its name."""

    def __init__(self, answer, min_component_fraction=0.0, targets=LGG_TARGETS):
        self._answer = answer
        self.targets = targets
        self.min_component_fraction = min_component_fraction

    def __call__(self, image, name="a volume", channels=None):
        return self._answer(image, name).reshape(len(self.targets), *image.shape[:3])


def new_run(**changes):
    """Opens the MLflow run of a training, in a pipeline run of its own unless told."""
    from components.shared.tracking.identity import Training
    from components.shared.tracking.tree import open_run

    values = {"pipeline_run": uuid.uuid4().hex, "dataset_id": "da7a", "split_id": "5911"}
    training = Training(**{**values, "recipe": {"epochs": 1}, **changes})
    return open_run(training, name="unet-resnet18")


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory):
    """Makes the model folder of a segmenter that calls tumour what is brighter on FLAIR.

    It is a real stored model, without the archive that no step loads. The tumour of `blob_volume`
    is found best with 150.
    """
    from tests.components.threshold_model import write_threshold_model

    folder = tmp_path_factory.mktemp("models")

    def make(level):
        path = folder / str(level)
        if not path.exists():
            write_threshold_model(path, level)
        return path

    return make


@pytest.fixture(scope="session")
def regions_model(tmp_path_factory):
    """The same for the targets of `regions_volume`, with a threshold for each."""
    from tests.components.threshold_model import write_threshold_model

    folder = tmp_path_factory.mktemp("regions") / "model"
    write_threshold_model(folder, 130, 160, 190, targets=REGIONS)
    return folder


def blob_volume(seed, slices=5, side=24):
    """Noise of 60 to 150 with a tumour of 130 to 220 in it: no threshold is perfect."""
    random = np.random.default_rng(seed)
    image = random.integers(60, 150, (slices, side, side, 3), np.uint8)
    mask = np.zeros((slices, side, side), np.uint8)
    size = int(random.integers(5, 12))
    mask[1:4, 4 : 4 + size, 6 : 6 + size] = 1
    image[mask > 0] = random.integers(130, 220, (int(mask.sum()), 3), np.uint8)
    return Volume(image, mask)


@pytest.fixture(scope="session")
def make_blob():
    return blob_volume


def regions_volume(seed):
    """A blob of edema that holds necrosis, which holds enhancing tumour, each brighter."""
    volume = blob_volume(seed)
    image, mask = volume.image, volume.mask * 2
    mask[2:4, 5:-1, 7:-1][mask[2:4, 6:, 8:] > 0] = 1  # all but the last row and column
    mask[3][mask[3] == 1] = 3
    for label, low in ((2, 125), (1, 150), (3, 180)):
        levels = np.random.default_rng(seed).integers(low, low + 40, ((mask == label).sum(), 3))
        image[mask == label] = levels
    return Volume(image, mask, targets=REGIONS)


@pytest.fixture(scope="session")
def make_regions():
    return regions_volume


@pytest.fixture(scope="session")
def publish():
    """Writes volumes to a store and returns their manifest."""

    def publish(store, volumes, sites=("CS", "DU"), labels=LGG_LABELS, targets=LGG_TARGETS):
        entries = []
        for number, volume in enumerate(volumes):
            encoded = encode_volume(volume)
            store.write(volume_key(encoded.digest), encoded.data)
            name = f"TCGA_{sites[number % len(sites)]}_{number:04d}_19990101"
            form = (parse_scan_name(name), volume, encoded, labels, targets[0])
            entries.append(describe_volume(*form))
        return make_manifest(entries, labels=labels, targets=targets)

    return publish


def count_masks(tumour_pixels, predicted_pixels, true_positives):
    """Masks of one slice that have these counts."""
    places = np.arange(tumour_pixels + predicted_pixels - true_positives + 1)[None, :, None]
    first = tumour_pixels - true_positives
    return Masks(places < tumour_pixels, (places >= first) & (places < first + predicted_pixels))


@pytest.fixture(scope="session")
def make_patient_score():
    """Makes a patient's score from the counts that matter to a test."""

    def make_patient_score(
        name,
        tumour_pixels,
        true_positives,
        predicted_pixels=None,
        site="CS",
        patient=None,
        **changes,
    ):
        predicted_pixels = true_positives if predicted_pixels is None else predicted_pixels
        masks = count_masks(tumour_pixels, predicted_pixels, true_positives)
        figures = {name: figure.measure(masks) for name, figure in PATIENT_FIGURES.items()}
        changes = {"hd95": None, "surface_dice": 0.0, **changes}
        return PatientScore(name, patient or name, site, **(figures | changes))

    return make_patient_score
