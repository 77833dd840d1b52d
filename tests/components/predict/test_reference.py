"""Comparison of new cases with the training data of a model version."""

import numpy as np
import pytest

from components.predict.reference import TrainingData, find_training_data
from components.shared.dataset.channels import LGG_CHANNELS, Channels
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.manifest import ChannelIntensity, manifest_key
from components.shared.dataset.split import make_split, split_key
from components.shared.dataset.volumes import Volume
from components.shared.storage.store import FolderStore
from tests.conftest import simulate_entry


def volume(gray, channels=LGG_CHANNELS):
    image = np.full((2, 8, 8, 3), gray, np.uint8)
    return Volume(image, np.zeros(image.shape[:3], np.uint8), channels)


def training(*entries, channels=LGG_CHANNELS):
    return TrainingData(entries, channels)


def gray(number, level, **changes):
    intensity = (ChannelIntensity(mean=level, p1=level, p50=level, p99=level),) * 3
    return simulate_entry(number, intensity=intensity, **changes)


def test_the_score_is_that_of_the_farthest_measure():
    data = training(*(gray(number, 100 + number) for number in range(11)))
    assert data.intensity_score(volume(105)) == 0
    unit = 3 / 0.6745
    assert data.intensity_score(volume(125)) == pytest.approx(20 / unit)
    assert data.intensity_score(volume(85)) == pytest.approx(20 / unit)


def test_other_channels_have_no_score():
    other = Channels(names=("T1", "T2", "FLAIR"))
    assert training(gray(1, 100)).intensity_score(volume(100, other)) is None


def mask(pixels):
    found = np.zeros((1, 10, 10), bool)
    found.flat[:pixels] = True
    return found


def test_sizes_lie_between_those_of_the_training_data():
    data = training(simulate_entry(1, tumour_pixels=10), simulate_entry(2, tumour_pixels=30))
    assert [data.has_size(mask(n), None) for n in (9, 10, 30, 31)] == [False, True, True, False]


def test_sizes_are_in_milliliters_where_all_spacings_are_known():
    geometry = Geometry.of_affine(np.diag([10.0, 10.0, 10.0, 1.0]))  # a voxel of 1 ml
    entries = [simulate_entry(n, tumour_pixels=10 * n, geometry=geometry) for n in (1, 3)]
    assert training(*entries).has_size(mask(40), voxel_ml=0.5)
    assert not training(*entries).has_size(mask(40), voxel_ml=1.0)
    assert not training(*entries, simulate_entry(4, tumour_pixels=10)).has_size(mask(40), 0.5)


def test_the_training_part_of_the_versions_data_is_found(register, make_data, tmp_path, caplog):
    from mlflow import MlflowClient

    store, model = FolderStore(tmp_path), register("with-origin")
    assert find_training_data(model, store) is None
    assert f"the training data of {model} are not in store" in caplog.text
    manifest = make_data(6)
    parts = {"train": manifest.volumes[:4], "validation": manifest.volumes[4:5]}
    split = make_split({**parts, "test": manifest.volumes[5:]})
    store.write(manifest_key(manifest.dataset_id), manifest.to_json())
    store.write(split_key(split.split_id), split.to_json())
    for key, value in (("dataset_id", manifest.dataset_id), ("split_id", split.split_id)):
        MlflowClient().set_model_version_tag("with-origin", "1", key, value)
    found = find_training_data(model, store)
    assert found.channels == LGG_CHANNELS
    assert {entry.volume for entry in found.entries} == {e.volume for e in manifest.volumes[:4]}
