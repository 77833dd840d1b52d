"""A source under a prefix of an S3 bucket."""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3
from minio import Minio
from minio.error import S3Error

from components.shared.reading.sources.archive import (
    ArchiveSource,
    archives_inside,
    only_archive,
)
from components.shared.reading.sources.source import (
    Source,
    SourceFile,
    UnreadableFileError,
    listed,
)
from components.shared.storage.s3 import connect, explain_s3_errors, parse_s3_uri, payer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SCHEME = "s3://"
FORM = "s3://bucket/prefix"
SHARED = True

_BUFFER_BYTES = 2**20  # of an archive: one request for many small members


def check_form(uri: str) -> None:
    """Requires the name of a bucket."""
    parse_s3_uri(uri)


@contextlib.contextmanager
def open_uri(uri: str, max_archive_gib: float) -> Iterator[Source]:
    """Opens a bucket's prefix, or the only .zip file there, which is read in place."""
    bucket, prefix = parse_s3_uri(uri)
    source, key = BucketSource(uri), prefix.rstrip("/")
    if not key.lower().endswith(".zip"):
        name = only_archive(source)
        if name is None:
            yield source
            return
        uri, key = f"{uri.rstrip('/')}/{name}", prefix + name
    opener = functools.partial(_open_object, uri, bucket, key)
    with archives_inside(ArchiveSource(uri, opener, max_archive_gib)) as archive:
        yield archive


@dataclass(frozen=True)
class BucketSource:
    """All objects below `s3://bucket/prefix`."""

    uri: str

    @property
    def name(self) -> str:
        bucket, prefix = parse_s3_uri(self.uri)
        return prefix.rstrip("/").rpartition("/")[2] or bucket

    def files(self) -> list[SourceFile]:
        return self._files

    def read(self, path: str) -> bytes:
        bucket, prefix = parse_s3_uri(self.uri)
        with explain_s3_errors(f"source {self.uri}: {path}", bucket):
            try:
                return _get(self._client, bucket, prefix + path).data
            except S3Error as error:
                if error.code == "NoSuchKey":
                    raise UnreadableFileError("it is gone from the bucket") from error
                if error.code != "AccessDenied":
                    raise
                # refused as well where the keys lost their rights: no single object is at fault
                next(self._list(), None)
                raise UnreadableFileError("access to it is denied") from error

    def __reduce__(self) -> tuple[Callable[..., "BucketSource"], tuple[object, ...]]:
        return BucketSource, (self.uri,)  # without the open connections

    @functools.cached_property
    def _files(self) -> list[SourceFile]:
        bucket, prefix = parse_s3_uri(self.uri)
        with explain_s3_errors(f"source {self.uri}", bucket):
            # a key that ends in "/" is how some tools mark an empty folder
            found = [
                listed(
                    item.object_name.removeprefix(prefix), item.size or 0, version=item.etag or ""
                )
                for item in self._list(recursive=True)
                if not item.object_name.endswith("/")
            ]
        return sorted(found, key=lambda file: file.path)

    def _list(self, *, recursive: bool = False) -> Iterator[Any]:
        bucket, prefix = parse_s3_uri(self.uri)
        yield from self._client.list_objects(
            bucket, prefix=prefix, recursive=recursive, extra_headers=payer()
        )

    @functools.cached_property
    def _client(self) -> Minio:
        return connect()


class _Object(io.RawIOBase):
    """An object that is read in ranges."""

    def __init__(self, uri: str, bucket: str, key: str) -> None:
        self._uri, self._bucket, self._key, self._position = uri, bucket, key, 0
        self._client = connect()
        first = self._range(0, 1)
        self._etag = first.headers["etag"]
        self._size = int(first.headers["content-range"].rpartition("/")[2])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._position)
        if length <= 0:
            return 0
        view[:length] = self._range(self._position, length).data
        self._position += length
        return length

    def _range(self, offset: int, length: int) -> urllib3.BaseHTTPResponse:
        with explain_s3_errors(f"source {self._uri}", self._bucket):
            return _get(self._client, self._bucket, self._key, offset, length)


def _open_object(uri: str, bucket: str, key: str) -> io.BufferedReader:
    return io.BufferedReader(_Object(uri, bucket, key), _BUFFER_BYTES)


def _get(
    client: Minio, bucket: str, key: str, offset: int = 0, length: int = 0
) -> urllib3.BaseHTTPResponse:
    """Returns the answer after reading its data."""
    response = client.get_object(bucket, key, offset, length, request_headers=payer())
    try:
        _ = response.data
    finally:
        response.close()
        response.release_conn()
    return response
