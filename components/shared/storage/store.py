"""The object store: an S3 bucket or a local folder behind one small interface.

Nothing outside this file knows which of the two is used, but `brainseg doctor`, which removes the
folder of a store that it only tried, and callers that always write to a folder.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from minio import Minio
from minio.error import S3Error

from components.shared.errors import UserError
from components.shared.storage.s3 import connect, explain_s3_errors, parse_s3_uri

# One request for any volume: quicker than parts, and a killed upload leaves no parts behind.
_PART_BYTES = 128 * 1024 * 1024
_UNFINISHED = ".part-"


@dataclass(frozen=True)
class StoredObject:
    """A listed object, with the time of its last write by the storage's clock."""

    key: str
    bytes: int
    modified: datetime


class Store(Protocol):
    """Objects under string keys such as `volumes/ab/abcd.safetensors`.

    Every method raises `UserError` when the storage refuses (missing bucket, wrong
    keys, endpoint down, disk full, no permission).
    """

    uri: str

    def exists(self, key: str) -> bool:
        """Returns whether a complete object is stored under `key`."""

    def read(self, key: str) -> bytes:
        """Returns an object's bytes.

        Raises:
            KeyError: If there is none.
        """

    def write(self, key: str, data: bytes) -> None:
        """Stores an object: afterwards it is there whole, or not at all."""

    def download(self, key: str, path: Path) -> None:
        """Writes an object to a local file that appears whole, or not at all.

        Raises:
            KeyError: If there is no such object.
        """

    def upload(self, path: Path, key: str) -> None:
        """Stores a local file; like `write`, for files too large for memory."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yields the keys that start with the folder `prefix` (ending in `/`), sorted."""

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yields the same with size and age."""

    def unfinished(self, prefix: str) -> Iterator[StoredObject]:
        """Yields partial files of killed writers, which `keys` hides and `delete` accepts.

        An S3 service hides its own: a lifecycle rule of the bucket removes those.
        """

    def delete(self, key: str) -> None:
        """Removes an object; a missing one is no error."""

    def local_path(self, key: str) -> Path | None:
        """The object's file where it already lies on this machine, else `None`."""


def open_store(uri: str) -> Store:
    """Opens the store at `s3://bucket/prefix` or at a local folder.

    S3 settings come from the standard `AWS_*` variables (see `components.shared.storage.s3`).

    Raises:
        UserError: If the URI has another scheme or names no bucket.
    """
    if uri.startswith("s3://"):
        bucket, prefix = parse_s3_uri(uri)
        return S3Store(uri, connect(), bucket, prefix)
    if "://" in uri or not uri:
        raise UserError(
            f"store {uri!r} is not understood; give s3://bucket/prefix or a local folder"
        )
    return FolderStore(Path(uri))


class FolderStore:
    """A store in a local folder, made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def exists(self, key: str) -> bool:
        return self.local_path(key) is not None

    def read(self, key: str) -> bytes:
        with self._explain(), self._missing(key):
            return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with self._explain(), self._writing(key) as stream:
            stream.write(data)

    def download(self, key: str, path: Path) -> None:
        with self._explain(), self._missing(key):
            reading = open(self.root / key, "rb")  # noqa: SIM115  # closed three lines below
        with reading, explain_disk(f"folder {path.parent}"), whole_file(path) as writing:
            shutil.copyfileobj(reading, writing)

    def upload(self, path: Path, key: str) -> None:
        with open(path, "rb") as reading, self._explain(), self._writing(key) as writing:
            shutil.copyfileobj(reading, writing)

    def keys(self, prefix: str) -> Iterator[str]:
        with self._explain():
            yield from sorted(key for key in self._walk(prefix) if not _is_unfinished(key))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        with self._explain():
            yield from self._described(self.keys(prefix))

    def unfinished(self, prefix: str) -> Iterator[StoredObject]:
        with self._explain():
            yield from self._described(sorted(filter(_is_unfinished, self._walk(prefix))))

    def delete(self, key: str) -> None:
        path = self.root / key
        with self._explain():
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    def local_path(self, key: str) -> Path | None:
        path = self.root / key
        with self._explain():
            return path if path.is_file() else None

    def _walk(self, prefix: str) -> Iterator[str]:
        for folder, _, files in os.walk(self.root / prefix, onerror=_raise_unless_missing):
            for name in files:
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def _described(self, keys: Iterable[str]) -> Iterator[StoredObject]:
        for key in keys:
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                found = (self.root / key).stat()
                yield StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[BinaryIO]:
        """Opens a new object, whose folders are not removed before it is in them."""
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(self.root, fcntl.LOCK_SH), whole_file(self.root / key) as stream:
            yield stream

    def _remove_empty(self, folder: Path) -> None:
        with (
            contextlib.suppress(OSError),
            _locked(self.root, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone,
        ):
            while alone and folder != self.root:
                folder.rmdir()  # until one is not empty
                folder = folder.parent

    @contextlib.contextmanager
    def _missing(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise KeyError(f"{self.uri}/{key}") from error

    def _explain(self) -> contextlib.AbstractContextManager[None]:
        return explain_disk(f"store {self.uri}")


class S3Store:
    """A store under a prefix of an S3 bucket."""

    def __init__(self, uri: str, client: Minio, bucket: str, prefix: str) -> None:
        self.uri = uri.rstrip("/")
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def exists(self, key: str) -> bool:
        with self._explain():
            try:
                # not HEAD, whose answers have no body that says what is wrong
                response = self._client.get_object(self._bucket, self._prefix + key, length=1)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    return False
                if error.code == "InvalidRange":  # it is empty
                    return True
                raise
            response.read(1)
            response.close()
            return True

    def read(self, key: str) -> bytes:
        stream = io.BytesIO()
        self._get(key, stream)
        return stream.getvalue()

    def write(self, key: str, data: bytes) -> None:
        self._put(key, io.BytesIO(data), len(data))

    def download(self, key: str, path: Path) -> None:
        with explain_disk(f"folder {path.parent}"), whole_file(path) as stream:
            self._get(key, stream)

    def upload(self, path: Path, key: str) -> None:
        with open(path, "rb") as stream:
            self._put(key, stream, path.stat().st_size)

    def keys(self, prefix: str) -> Iterator[str]:
        return (found.key for found in self.objects(prefix))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        with self._explain():
            for item in self._client.list_objects(
                self._bucket, prefix=self._prefix + prefix, recursive=True
            ):
                key = item.object_name.removeprefix(self._prefix)
                yield StoredObject(key, item.size, item.last_modified)

    def unfinished(self, prefix: str) -> Iterator[StoredObject]:
        return iter(())

    def delete(self, key: str) -> None:
        with self._explain():
            self._client.remove_object(self._bucket, self._prefix + key)

    def local_path(self, key: str) -> Path | None:
        return None

    def _put(self, key: str, stream: BinaryIO, length: int) -> None:
        with self._explain():
            self._client.put_object(
                self._bucket, self._prefix + key, stream, length, part_size=_PART_BYTES
            )

    def _get(self, key: str, target: BinaryIO) -> None:
        with self._explain():
            try:
                response = self._client.get_object(self._bucket, self._prefix + key)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    raise KeyError(f"{self.uri}/{key}") from error
                raise
            try:
                for chunk in response.stream(1024 * 1024):
                    target.write(chunk)
            finally:
                response.close()
                response.release_conn()

    def _explain(self) -> contextlib.AbstractContextManager[None]:
        return explain_s3_errors(f"store {self.uri}", self._bucket)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that appears under its name when the block ends well, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
    try:
        with open(descriptor, "wb") as stream:
            yield stream
        Path(temporary).chmod(0o644)  # mkstemp makes 0600; other users read the file too
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[bool]:
    """Locks a folder; yields whether that succeeded. Some file systems know no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        is_locked = True
    except OSError:
        is_locked = False
    try:
        yield is_locked
    finally:
        os.close(descriptor)


def _is_unfinished(key: str) -> bool:
    return key.rpartition("/")[2].startswith(_UNFINISHED)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def explain_disk(what: str) -> Iterator[None]:
    """Turns a refusal of the file system into a `UserError` with advice.

    Args:
        what: The subject of the message, e.g. `cache /data/cache`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {_advice(error)}") from error


def _advice(error: OSError) -> str:
    advice = {
        errno.ENOSPC: "the disk is full; free space or choose another place",
        errno.EDQUOT: "the disk quota is used up; free space or choose another place",
        errno.EROFS: "the file system is read-only; choose a place that can be written",
        errno.EACCES: "no permission; change the folder's rights or choose another place",
        errno.ENOTDIR: "a file stands where a folder should be; choose another place",
        errno.EEXIST: "a file stands where a folder should be; choose another place",
    }
    return advice.get(error.errno or 0, f"{error.strerror or error}")


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
