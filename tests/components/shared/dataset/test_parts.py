import numpy as np
import pytest

from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import PARTS, make_split
from components.shared.dataset.volumes import volume_key
from components.shared.errors import UserError
from components.shared.storage.store import open_store


@pytest.fixture
def places(tmp_path, publish, make_blob):
    """The arguments that open a data set of six published volumes."""
    store = open_store(str(tmp_path / "store"))
    manifest = publish(store, [make_blob(number) for number in range(6)])
    volumes = manifest.volumes
    split = make_split({"train": volumes[:4], "validation": volumes[4:5], "test": volumes[5:]})
    (tmp_path / "manifest").write_bytes(manifest.to_json())
    (tmp_path / "split").write_bytes(split.to_json())
    return {
        "store": store.uri,
        "cache": tmp_path / "cache",
        "dataset_id": manifest.dataset_id,
        "split_id": split.split_id,
        "manifest": tmp_path / "manifest",
        "split": tmp_path / "split",
    }


def test_every_volume_is_in_one_part_and_has_its_voxels(places, make_blob):
    opened = SplitDataset.open(**places)
    entries = [entry for part in PARTS for entry in opened.entries(part)]
    assert [entry.volume for entry in entries] == list(opened.manifest.by_name())
    for entry in entries:  # published in the order of the patients' numbers
        blob = make_blob(int(entry.patient.rpartition("_")[2]))
        np.testing.assert_array_equal(opened.volume(entry).image, blob.image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_id": "other"}, "is not data set other"),
        ({"split_id": "other"}, "not other"),
    ],
)
def test_refuses_files_of_another_version(places, change, message):
    with pytest.raises(UserError, match=message):
        SplitDataset.open(**{**places, **change})


def test_refuses_a_split_that_leaks(places):
    opened = SplitDataset.open(**places)
    everyone = opened.manifest.volumes
    leaking = make_split({"train": everyone, "validation": everyone[:1], "test": everyone[5:]})
    places["split"].write_bytes(leaking.to_json())
    with pytest.raises(UserError, match="named twice"):
        SplitDataset.open(**{**places, "split_id": leaking.split_id})


def test_voxels_that_were_changed_are_refused(places):
    opened = SplitDataset.open(**places)
    entry = opened.entries("test")[0]
    path = opened.store.local_path(volume_key(entry.digest))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="was changed"):
        opened.volume(entry)
