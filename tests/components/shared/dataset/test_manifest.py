import json

import numpy as np
import pytest

from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.manifest import (
    ChannelIntensity,
    canonical_json,
    fetch_manifest,
    list_datasets,
    make_manifest,
    manifest_key,
    read_manifest,
    short_digest,
)
from components.shared.errors import UserError
from components.shared.storage.store import FolderStore


@pytest.fixture
def data(make_data):
    return make_data(5)


def test_the_id_is_that_of_the_content_alone(data, make_entry):
    assert make_manifest(reversed(data.volumes)).dataset_id == data.dataset_id
    fewer = make_manifest(data.volumes[1:])
    assert fewer.dataset_id != data.dataset_id
    assert data.dataset_id == short_digest(data.to_json())


def test_a_known_manifest_has_a_known_id(make_entry):
    """Another release must find the versions that this one wrote."""
    entry = make_entry(
        1,
        slices=20,
        tumour_pixels=100,
        tumour_slices=2,
        missing=("pre-contrast",),
        intensity=(ChannelIntensity(mean=0.1, p1=0, p50=1, p99=2),),
        attributes={"age_at_initial_pathologic": 67.0, "RPPACluster": None},
    )
    assert make_manifest([entry]).dataset_id == "4fec15ca5a736cec"


def test_canonical_json_has_one_spelling():
    assert canonical_json({"b": 1, "a": ["é", 1.5, None]}) == b'{"a":["\\u00e9",1.5,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_survives_a_file(data, tmp_path):
    (tmp_path / "manifest").write_bytes(data.to_json())
    assert read_manifest(tmp_path / "manifest", data.dataset_id) == data


def test_survives_a_store(data, tmp_path):
    store = FolderStore(tmp_path)
    store.write(manifest_key(data.dataset_id), data.to_json())
    assert fetch_manifest(store, data.dataset_id) == data


def test_a_changed_manifest_is_refused(data, tmp_path):
    changed = data.to_json().replace(b'"site":"DU"', b'"site":"CS"')
    (tmp_path / "manifest").write_bytes(changed)
    with pytest.raises(UserError, match=rf"is not data set {data.dataset_id}: its digest is"):
        read_manifest(tmp_path / "manifest", data.dataset_id)


def test_a_manifest_of_another_release_is_refused(data, tmp_path):
    loaded = json.loads(data.to_json())
    del loaded["volumes"][0]["site"]
    changed = canonical_json(loaded)
    (tmp_path / "manifest").write_bytes(changed)
    with pytest.raises(UserError, match="is not a manifest of this version"):
        read_manifest(tmp_path / "manifest", short_digest(changed))


def test_an_unknown_version_is_told_with_the_way_to_the_known(tmp_path):
    with pytest.raises(UserError, match="has no data set 0123; list those it has with"):
        fetch_manifest(FolderStore(tmp_path), "0123")


def test_lists_the_versions_of_a_store(make_data, tmp_path):
    store = FolderStore(tmp_path)
    assert list_datasets(store) == []
    versions = sorted((make_data(count) for count in (3, 4)), key=lambda data: data.dataset_id)
    for data in versions:
        store.write(manifest_key(data.dataset_id), data.to_json())
    found = list_datasets(store)
    assert [item.dataset_id for item in found] == [data.dataset_id for data in versions]
    assert [item.volumes for item in found] == [len(data.volumes) for data in versions]
    assert found[0].slices == sum(entry.slices for entry in versions[0].volumes)


def test_a_bad_manifest_does_not_hide_the_others(make_data, tmp_path, caplog):
    store = FolderStore(tmp_path)
    good, changed, foreign = make_data(3), make_data(4), b'{"made by": "another tool"}'
    store.write(manifest_key(good.dataset_id), good.to_json())
    store.write(manifest_key(changed.dataset_id), changed.to_json()[:-9])
    store.write(manifest_key(short_digest(foreign)), foreign)
    store.write("datasets/manifest.json", foreign)
    store.write("datasets/deep/er/manifest.json", foreign)

    found = list_datasets(store)

    assert [item.dataset_id for item in found] == [good.dataset_id]
    names = sorted([changed.dataset_id, short_digest(foreign), "deep/er", "manifest.json"])
    told = sorted(record.getMessage() for record in caplog.records)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4
    assert len(told) == len(names)
    assert all(any(f"{tmp_path}/datasets/{name}" in line for line in told) for name in names)
    assert not any("\n" in line for line in told)


def test_a_store_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file stands where a folder should be"):
        list_datasets(FolderStore(tmp_path / "file"))


def test_fields_with_their_defaults_are_not_stored(make_entry):
    plain = make_entry(1)
    assert b"geometry" not in make_manifest([plain]).to_json()
    assert b"channels" not in make_manifest([plain]).to_json()


def test_channels_targets_and_geometry_are_read_back(make_entry, tmp_path):
    geometry = Geometry.of_affine(np.diag([5.5, 0.9, 0.9, 1]))
    entry = make_entry(1).model_copy(update={"geometry": geometry, "dtype": "int16"})
    manifest = make_manifest(
        [entry],
        Channels(names=("T2", "T1"), reference="T2", dtype="float32"),
        {"core": 1, "oedema": 2},
        (Target(name="whole", labels=(1, 2)), Target(name="core", labels=(1,))),
    )
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest.to_json())
    read = read_manifest(path, manifest.dataset_id)
    assert read == manifest
    assert read.channels.names == ("T2", "T1")
    assert [target.name for target in read.targets] == ["whole", "core"]
    assert read.volumes[0].tumour_ml == pytest.approx(entry.tumour_pixels * 5.5 * 0.81 / 1000)
