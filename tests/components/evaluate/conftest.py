"""A small data set version, a real exported model and a local MLflow."""

import json

import mlflow.pytorch
import numpy as np
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from components.shared.dataset.manifest import VolumeEntry, make_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.dataset.volumes import FLAIR, Volume, encode_volume, volume_key
from components.shared.storage.store import open_store
from components.shared.tracking.local import initialise_local
from tests.components.conftest import new_run

SLICES, HEIGHT, WIDTH = 5, 40, 32


class BrightFlair(torch.nn.Module):
    """Takes bright FLAIR for tumour: half right on the volumes below."""

    def forward(self, volume):
        return torch.sigmoid((volume[..., FLAIR].float() - 150) / 20)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An MLflow model folder with an exported segmenter."""
    folder = tmp_path_factory.mktemp("model") / "model"
    example = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    mlflow.pytorch.save_model(
        BrightFlair().eval(),
        folder,
        serialization_format="pt2",
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1))]),
        ),
        input_example=example,
        pip_requirements=["torch"],
    )
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Ten patients of two sites and growing tumours, the first without; eight are the test."""
    folder = tmp_path_factory.mktemp("data")
    store = open_store(str(folder / "store"))
    entries = [_put(store, index) for index in range(10)]
    manifest = make_manifest(entries)
    names = [entry.volume for entry in manifest.volumes]
    split = make_split({"train": names[9:], "validation": names[8:9], "test": names[:8]})
    return SplitDataset(store, folder / "cache", manifest, split)


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.json"
    rows = [
        {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1.1 / epoch}
        | {"validation_dice": 1 - 1 / epoch, "learning_rate": 0.001}
        for epoch in range(1, 6)
    ]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def mlflow_run_id(tmp_path, monkeypatch):
    """A run in a fresh local MLflow."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    uri = initialise_local(tmp_path / "mlflow.db", tmp_path / "artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return new_run()


def _put(store, index):
    volume = _volume(index)
    encoded = encode_volume(volume)
    store.write(volume_key(encoded.digest), encoded.data)
    name = f"TCGA_{('CS', 'DU')[index % 2]}_{index:04}_20000101"
    return VolumeEntry(
        volume=name,
        patient=name[:12],
        site=name[5:7],
        date="20000101",
        digest=encoded.digest,
        image_digest=encoded.image_digest,
        slices=SLICES,
        height=HEIGHT,
        width=WIDTH,
        tumour_pixels=int(volume.mask.sum()),
        tumour_slices=int(volume.mask.any(axis=(1, 2)).sum()),
        missing=(),
        intensity=(),
        attributes={},
    )


def _volume(index):
    random = np.random.default_rng(index)
    image = random.integers(0, 8, (SLICES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[:, 4:36, 4:28] += 90
    mask = np.zeros((SLICES, HEIGHT, WIDTH), dtype=np.uint8)
    mask[1:4, 10 : 10 + 2 * index, 8:16] = 1
    image[mask > 0, FLAIR] = 180
    image[:, 10:12, 20:24, FLAIR] = 200  # bright and no tumour
    image[3, :, :12, FLAIR] //= 2  # tumour that is not bright
    return Volume(image, mask)
