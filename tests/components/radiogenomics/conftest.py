"""Round and star-shaped tumours of two clusters, and a registered model that finds them."""

import uuid
from dataclasses import dataclass

import numpy as np
import pytest

from components.radiogenomics.settings import RadiogenomicsSettings
from components.shared.dataset.manifest import make_manifest, manifest_key
from components.shared.dataset.split import make_split, split_key
from components.shared.dataset.volumes import Volume
from components.shared.storage.store import open_store
from components.shared.tracking.server import connect

SIDE, LEVEL = 32, 150


def star_volume(number):
    """A cylinder, or for odd numbers a star, brighter than what surrounds it."""
    z, y, x = np.mgrid[-3:4, -SIDE // 2 : SIDE // 2, -SIDE // 2 : SIDE // 2]
    arms = 0.35 * np.cos(6 * np.arctan2(y, x)) * (number % 2)
    mask = (np.hypot(y, x) < (7 + number / 6) * (1 + arms)) & (np.abs(z) < 3)
    image = np.full((*mask.shape, 3), 60, np.uint8)
    image[mask] = 200
    return Volume(image, mask.astype(np.uint8))


@dataclass
class World:
    """A data set of twelve patients, and a version of a model that has seen the first four."""

    store: object
    cache: object
    manifest: object
    split: object
    settings: RadiogenomicsSettings
    tags: dict

    def register(self, folder, **tags):
        """Registers a model folder as the champion of a new name."""
        client, name = connect(), uuid.uuid4().hex
        client.create_registered_model(name)
        made = client.create_model_version(name, str(folder), tags={**self.tags, **tags})
        client.set_registered_model_alias(name, "champion", made.version)
        self.settings = self.settings.model_copy(update={"model_name": name})


@pytest.fixture
def world(tmp_path, local_mlflow, publish, threshold_model):
    store = open_store(str(tmp_path / "store"))
    published = publish(store, [star_volume(number) for number in range(12)])
    manifest = make_manifest(
        entry.model_copy(update={"attributes": {"RNASeqCluster": float(1 + (entry.site == "DU"))}})
        for entry in published.volumes
    )
    entries = sorted(manifest.volumes, key=lambda entry: entry.patient.rpartition("_")[2])
    split = make_split({"train": entries[:3], "validation": entries[3:4], "test": entries[4:]})
    store.write(manifest_key(manifest.dataset_id), manifest.to_json())
    store.write(split_key(split.split_id), split.to_json())
    tags = {"dataset_id": manifest.dataset_id, "split_id": split.split_id, "threshold": "0.5"}
    settings = RadiogenomicsSettings(device="cpu")
    world = World(store, tmp_path / "cache", manifest, split, settings, tags)
    world.register(threshold_model(LEVEL))
    return world
