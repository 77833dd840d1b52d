"""A small data set version, a real exported model and a local MLflow."""

import json

import numpy as np
import pytest

from components.shared.dataset.channels import LGG_CHANNELS
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.dataset.volumes import Volume
from components.shared.storage.store import open_store
from tests.components.conftest import new_run

SLICES, HEIGHT, WIDTH = 5, 40, 32


@pytest.fixture(scope="session")
def model(threshold_model):
    """An MLflow model folder with an exported segmenter: half right on the volumes below."""
    return threshold_model(150)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, publish):
    """Ten patients of two sites and growing tumours, the first without; eight are the test."""
    folder = tmp_path_factory.mktemp("data")
    store = open_store(str(folder / "store"))
    manifest = publish(store, [_volume(index) for index in range(10)])
    volumes = manifest.volumes
    split = make_split({"train": volumes[9:], "validation": volumes[8:9], "test": volumes[:8]})
    return SplitDataset(store, folder / "cache", manifest, split)


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.json"
    rows = [
        {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1.1 / epoch}
        | {"validation_dice": 1 - 1 / epoch, "learning_rate": 0.001}
        for epoch in range(1, 6)
    ]
    search = {
        "learning_rates": [1e-4, 1e-3, 1e-2],
        "losses": [1.0, 0.6, 0.4],
        "smoothed": [1.0, 0.8, 0.6],
        "suggestion": {
            "learning_rate": 0.00123,
            "valley": [1e-4, 1e-2],
            "valley_losses": [1.0, 0.6],
            "steepest": 0.004,
        },
        "reason": "It falls.",
    }
    path.write_text(json.dumps({"epochs": rows, "learning_rate_search": search}))
    return path


@pytest.fixture
def mlflow_run_id(tmp_path, monkeypatch, make_mlflow):
    """A run in a fresh local MLflow."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    return new_run()


@pytest.fixture
def results(tmp_path):
    return {name: tmp_path / name for name in ("report", "per_patient", "metrics")}


def _volume(index):
    random = np.random.default_rng(index)
    image = random.integers(0, 8, (SLICES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[:, 4:36, 4:28] += 90
    mask = np.zeros((SLICES, HEIGHT, WIDTH), dtype=np.uint8)
    mask[1:4, 10 : 10 + 2 * index, 8:16] = 1
    image[mask > 0, LGG_CHANNELS.reference_index] = 180
    image[:, 10:12, 20:24, LGG_CHANNELS.reference_index] = 200  # bright and no tumour
    image[3, :, :12, LGG_CHANNELS.reference_index] //= 2  # tumour that is not bright
    return Volume(image, mask)
