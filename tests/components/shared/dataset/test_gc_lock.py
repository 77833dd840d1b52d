"""Removing volumes during an ingest: both really run at the same time."""

import threading
from datetime import timedelta

import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset import gc_lock
from components.shared.dataset.gc_lock import require_volumes, unnamed_volumes
from components.shared.dataset.manifest import manifest_key
from components.shared.errors import UserError
from components.shared.storage.store import open_store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_store_uri"))
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def publish_blobs(store, publish, make_blob):
    def publish_blobs(*seeds):
        manifest = publish(store, [make_blob(seed) for seed in seeds])
        store.write(manifest_key(manifest.dataset_id), manifest.to_json())
        return manifest

    return publish_blobs


def keys(manifest):
    return {gc_lock.volume_key(entry.digest) for entry in manifest.volumes}


def test_a_volume_is_needed_while_any_data_set_names_it(store, publish_blobs):
    one, two = publish_blobs(1, 2, 3), publish_blobs(2, 3, 4)
    assert unnamed_volumes(store) == []
    store.delete(manifest_key(one.dataset_id))
    assert {found.key for found in unnamed_volumes(store)} == keys(one) - keys(two)


def test_other_files_in_the_folder_are_left_alone(store, publish_blobs):
    publish_blobs(1)
    for name in ("scan.nii", "ab/scan.safetensors", f"cd/ab{'0' * 62}.safetensors"):
        store.write(f"volumes/{name}", b"somebody's")
    assert unnamed_volumes(store) == []


def test_a_manifest_that_cannot_be_read_names_everything(store, publish_blobs):
    key = manifest_key(publish_blobs(1).dataset_id)
    store.write(key, b"{}")
    with pytest.raises(UserError, match="is not data set"):
        unnamed_volumes(store)


def test_a_mark_is_there_while_volumes_are_removed(store):
    with gc_lock.gc_lock(store) as refresh:
        refresh()
        assert len(list(store.keys("gc/"))) == 1
    assert list(store.keys("gc/")) == []
    with pytest.raises(ZeroDivisionError), gc_lock.gc_lock(store):
        raise ZeroDivisionError
    assert list(store.keys("gc/")) == []


def test_removals_keep_the_mark_fresh(store, monkeypatch):
    with gc_lock.gc_lock(store) as refresh:
        (key,) = store.keys("gc/")
        store.delete(key)
        refresh()  # it is young: there is nothing to do
        assert not store.exists(key)
        monkeypatch.setattr(gc_lock, "_REFRESH", timedelta(0))
        refresh()
        assert store.exists(key)


def test_manifests_keep_the_mark_fresh(store, publish_blobs):
    publish_blobs(1), publish_blobs(2)
    calls = []
    assert unnamed_volumes(store, lambda: calls.append(1)) == []
    assert len(calls) == 2


def test_a_gc_that_was_stopped_removes_nothing_more(store, monkeypatch):
    with gc_lock.gc_lock(store) as refresh:
        monkeypatch.setattr(gc_lock, "_PAUSE", timedelta(0))
        for _ in range(2):  # it stays stopped
            with pytest.raises(UserError, match="stopped for a while"):
                refresh()


def test_ingest_waits_for_the_end_of_a_removal(store, publish_blobs, monkeypatch):
    monkeypatch.setattr(gc_lock, "_POLL_S", 0.01)
    manifest, order = publish_blobs(1, 2), []

    def ingest():
        require_volumes(store, manifest)
        order.append("ingest")

    with gc_lock.gc_lock(store):
        waiting = threading.Thread(target=ingest)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        order.append("gc")
    waiting.join(300)
    assert order == ["gc", "ingest"]


def test_ingest_does_not_wait_for_a_dead_gc(store, publish_blobs, monkeypatch):
    manifest = publish_blobs(1)
    store.write("gc/dead", b"")
    real = gc_lock.datetime

    class InAQuarter:
        now = staticmethod(lambda zone: real.now(zone) + timedelta(minutes=16))

    monkeypatch.setattr(gc_lock, "datetime", InAQuarter)
    require_volumes(store, manifest)


def test_a_volume_that_was_removed_meanwhile_is_reported(store, publish_blobs):
    manifest = publish_blobs(1, 2)
    store.delete(min(keys(manifest)))
    with pytest.raises(UserError, match=r"1 volumes of data set .* ingest again: that writes them"):
        require_volumes(store, manifest)


def test_an_ingest_that_found_a_volume_which_then_went_is_repaired_by_the_next(
    tmp_path, synthetic_folder, monkeypatch
):
    store = open_store(str(tmp_path / "store"))
    first = ingest_source(str(synthetic_folder), store, IngestSettings(), workers=1)
    store.delete(manifest_key(first.manifest.dataset_id))
    doomed = min(keys(first.manifest))
    real = store.write

    def write(key, data):  # just after all volumes were looked at, just before the manifest
        store.delete(doomed)
        real(key, data)

    monkeypatch.setattr(store, "write", write)
    with pytest.raises(UserError, match="ingest again"):
        ingest_source(str(synthetic_folder), store, IngestSettings(), workers=1)
    monkeypatch.undo()
    again = ingest_source(str(synthetic_folder), store, IngestSettings(), workers=1)
    assert again.account.objects_written == 1
    assert unnamed_volumes(store) == []
