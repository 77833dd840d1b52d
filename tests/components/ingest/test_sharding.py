"""Ingest in shards: the version is that of one ingest."""

import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.ingest.sharding import ingest_shard, merge_shards, plan_shards
from components.shared.errors import UserError
from components.shared.reading.sources.synthetic import write_synthetic
from components.shared.storage.store import FolderStore

SETTINGS = IngestSettings(shard_volumes=2)


@pytest.fixture
def source(tmp_path):
    folder = write_synthetic(tmp_path / "source", patients=5, seed=0)
    scans = sorted(path for path in folder.iterdir() if path.is_dir())
    next(scans[1].glob("*_mask.tif")).unlink()  # one volume is quarantined
    scans[2].rename(scans[2].with_name("patient-3"))  # and one has a wrong name
    return str(folder)


def read_in_shards(source, store, folder):
    parts = []
    for number, shard in enumerate(plan_shards(source, SETTINGS)):
        parts.append(folder / f"{number}.json")
        ingest_shard(source, store, SETTINGS, **shard, part=parts[-1])
    return parts


def test_shards_publish_the_version_of_one_ingest(source, tmp_path):
    one = ingest_source(source, FolderStore(tmp_path / "one"), SETTINGS, workers=1)
    store = FolderStore(tmp_path / "many")
    parts = read_in_shards(source, store, tmp_path)
    assert len(parts) == 2
    merged = merge_shards(source, store, SETTINGS, parts[::-1])
    assert merged == one
    assert {bad.volume for bad in merged.account.quarantined}
    again = ingest_source(f"dataset:{one.manifest.dataset_id}", store, SETTINGS)
    assert again.manifest == one.manifest
    assert again.account.volumes == one.account.volumes


def test_a_source_that_changes_in_between_is_refused(source, tmp_path):
    store = FolderStore(tmp_path / "many")
    parts = read_in_shards(source, store, tmp_path)
    with pytest.raises(UserError, match=r"has changed while it was read: TCGA_.* start the run"):
        merge_shards(source, store, SETTINGS, parts[1:])
    assert not list(store.keys("datasets/"))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("dataset:0123456789abcdef", "has no data set 0123456789abcdef"),
        ("dataset:lgg", "must be dataset: and an id of 16 digits"),
    ],
)
def test_an_unknown_version_is_refused(tmp_path, uri, message):
    with pytest.raises(UserError, match=message):
        ingest_source(uri, FolderStore(tmp_path / "store"), SETTINGS)
