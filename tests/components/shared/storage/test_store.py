import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta

import pytest

from components.shared.errors import UserError
from components.shared.storage.store import FolderStore, S3Store, open_store

DATA = bytes(range(256)) * 5000


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_store_uri"))
    return open_store(str(tmp_path / "store"))


class TestEveryStore:
    """What the steps rely on, whatever the storage."""

    def test_returns_what_was_written(self, store):
        store.write("volumes/ab/one", DATA)
        assert store.read("volumes/ab/one") == DATA

    def test_keeps_an_empty_object(self, store):
        store.write("empty", b"")
        assert store.exists("empty")
        assert store.read("empty") == b""

    def test_replaces_an_object_whole(self, store):
        store.write("one", DATA)
        store.write("one", b"new")
        assert store.read("one") == b"new"

    def test_exists_tells_whole_objects_apart_from_folders_and_nothing(self, store):
        store.write("folder/one", b"1")
        assert store.exists("folder/one")
        assert not store.exists("folder/two")
        assert not store.exists("folder")

    @pytest.mark.parametrize("key", ["none", "no/such/folder/none"])
    def test_a_missing_object_is_a_key_error(self, store, tmp_path, key):
        with pytest.raises(KeyError, match=key):
            store.read(key)
        with pytest.raises(KeyError, match=key):
            store.download(key, tmp_path / "copy")
        assert not any(path.is_file() for path in tmp_path.rglob("*copy*"))

    def test_upload_and_download_copy_files(self, store, tmp_path):
        (tmp_path / "source").write_bytes(DATA)
        store.upload(tmp_path / "source", "a/b")
        store.download("a/b", tmp_path / "new" / "copy")
        assert (tmp_path / "new" / "copy").read_bytes() == DATA
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]

    def test_an_object_larger_than_one_request_survives(self, store, monkeypatch):
        monkeypatch.setattr("components.shared.storage.store._PART_BYTES", 5 * 1024 * 1024)
        data = os.urandom(11 * 1024 * 1024)
        store.write("large", data)
        assert hashlib.sha256(store.read("large")).digest() == hashlib.sha256(data).digest()

    def test_lists_the_keys_below_a_folder_in_order(self, store):
        names = ["d/z", "d/b/c", "d/b.txt", "d/a", "e/a", "dd/a"]
        for name in names:
            store.write(name, b"1")
        assert list(store.keys("d/")) == ["d/a", "d/b.txt", "d/b/c", "d/z"]
        assert list(store.keys("nothing/")) == []

    def test_lists_objects_with_size_and_age(self, store):
        began = datetime.now(UTC)
        store.write("d/one", b"123")
        store.write("d/two/three", b"")
        found = list(store.objects("d/"))
        assert [(item.key, item.bytes) for item in found] == [("d/one", 3), ("d/two/three", 0)]
        # S3 tells whole seconds
        assert all(abs(item.modified - began) < timedelta(seconds=60) for item in found)
        assert list(store.objects("nothing/")) == list(store.unfinished("d/")) == []

    def test_delete_removes_and_forgives_a_missing_object(self, store):
        store.write("one", b"1")
        store.delete("one")
        store.delete("one")
        assert not store.exists("one")

    def test_two_writers_leave_one_whole_object(self, store):
        candidates = [bytes([number]) * 2_000_000 for number in range(2)]
        seen = []

        def write(data):
            for _ in range(5):
                store.write("one", data)
                seen.append(store.read("one"))

        threads = [threading.Thread(target=write, args=(data,)) for data in candidates]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 10
        assert all(data in candidates for data in seen)
        assert list(store.keys("")) == ["one"]

    def test_a_failing_write_to_a_local_copy_leaves_nothing(self, store, tmp_path):
        store.write("one", DATA)
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(UserError, match="a file stands where a folder should be"):
            store.download("one", tmp_path / "file" / "copy")


def test_the_uri_decides_which_store_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert isinstance(open_store("s3://bucket/prefix"), S3Store)


@pytest.mark.parametrize("uri", ["gs://bucket/x", "https://host/bucket", ""])
def test_refuses_a_uri_of_another_kind(uri):
    with pytest.raises(UserError, match="give s3://bucket/prefix or a local folder"):
        open_store(uri)


class TestFolderStore:
    def test_says_where_an_object_lies(self, tmp_path):
        store = FolderStore(tmp_path)
        store.write("a/b", b"1")
        assert store.local_path("a/b") == tmp_path / "a" / "b"
        assert store.local_path("a/c") is None

    def test_a_write_that_dies_leaves_nothing(self, tmp_path, monkeypatch):
        def die(*_):
            raise KeyboardInterrupt

        store = FolderStore(tmp_path)
        monkeypatch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            store.write("a/b", b"1")
        assert list((tmp_path / "a").iterdir()) == []

    def test_the_rest_of_a_killed_write_is_no_object(self, tmp_path):
        store = FolderStore(tmp_path)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / ".part-x1").write_bytes(b"half")
        assert list(store.keys("a/")) == []
        (rest,) = store.unfinished("a/")
        assert (rest.key, rest.bytes) == ("a/.part-x1", 4)
        store.delete(rest.key)
        assert list(store.unfinished("a/")) == []

    def test_the_last_object_takes_its_folders_along(self, tmp_path):
        store = FolderStore(tmp_path / "store")
        for key in ("a/b/c/one", "a/two"):
            store.write(key, b"1")
        store.delete("a/b/c/one")
        assert [path.name for path in (tmp_path / "store" / "a").iterdir()] == ["two"]
        store.delete("a/two")
        assert list((tmp_path / "store").iterdir()) == []

    def test_writers_do_not_mind_folders_that_go(self, tmp_path):
        store, stop = FolderStore(tmp_path), threading.Event()

        def remove():
            while not stop.is_set():
                store.delete("a/b/other")  # and the folders, while they are empty

        remover = threading.Thread(target=remove)
        remover.start()
        try:
            for number in range(300):
                store.write(f"a/b/{number}", b"1")
                store.delete(f"a/b/{number}")
        finally:
            stop.set()
            remover.join()

    def test_folders_stay_between_their_creation_and_the_first_file(self, tmp_path, monkeypatch):
        store, real = FolderStore(tmp_path), tempfile.mkstemp

        def mkstemp(**options):
            removing = "from components.shared.storage.store import FolderStore; import pathlib;"
            removing += f"FolderStore(pathlib.Path({str(tmp_path)!r})).delete('a/b/other')"
            subprocess.run([sys.executable, "-c", removing], check=True)
            return real(**options)

        monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
        store.write("a/b/one", b"1")
        monkeypatch.undo()
        assert store.read("a/b/one") == b"1"
        store.delete("a/b/one")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_system_without_locks(self, tmp_path, monkeypatch):
        def flock(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
        store = FolderStore(tmp_path)
        store.write("a/b/one", b"1")
        store.delete("a/b/one")
        assert not store.exists("a/b/one")

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "store").write_text("a file")
        with pytest.raises(UserError, match="a file stands where a folder should be"):
            FolderStore(tmp_path / "store").write("one", b"1")

    def test_no_permission_to_write(self, public_path, without_root):
        public_path.chmod(0o555)
        with without_root(), pytest.raises(UserError, match="no permission; change the folder's"):
            FolderStore(public_path).write("one", b"1")

    def test_no_permission_to_read(self, public_path, without_root):
        store = FolderStore(public_path / "store")
        store.write("d/one", b"1")
        (public_path / "store" / "d").chmod(0)
        with without_root():
            for use in (store.exists, store.read, store.local_path, lambda _: [*store.keys("d/")]):
                with pytest.raises(UserError, match="no permission"):
                    use("d/one")

    def test_a_full_disk(self, small_disk):
        store = FolderStore(small_disk)
        with pytest.raises(UserError, match=r"store .*: the disk is full; free space"):
            store.write("one", DATA)
        assert list(store.keys("")) == []
        assert [path for path in small_disk.rglob("*") if path.is_file()] == []

    def test_a_full_disk_below_the_cache(self, small_disk, tmp_path):
        store = FolderStore(tmp_path)
        store.write("one", DATA)
        with pytest.raises(UserError, match=rf"folder {small_disk}: the disk is full"):
            store.download("one", small_disk / "copy")

    def test_a_read_only_disk(self, small_disk):
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        with pytest.raises(UserError, match="read-only; choose a place that can be written"):
            FolderStore(small_disk).write("one", b"1")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk can be mounted by root only")
    yield disk
    subprocess.run(["umount", disk], check=True)
