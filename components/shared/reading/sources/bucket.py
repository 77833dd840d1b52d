"""A source under a prefix of an S3 bucket."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minio import Minio
from minio.error import S3Error

from components.shared.reading.sources.source import (
    Source,
    SourceFile,
    UnreadableFileError,
    listed,
)
from components.shared.storage.s3 import connect, explain_s3_errors, parse_s3_uri

SCHEME = "s3://"
FORM = "s3://bucket/prefix"
SHARED = True


def check_form(uri: str) -> None:
    """Requires the name of a bucket."""
    parse_s3_uri(uri)


@contextlib.contextmanager
def open_uri(uri: str, max_archive_gib: float) -> Iterator[Source]:
    """Opens a bucket's prefix; it is listed later."""
    yield BucketSource(uri)


@dataclass(frozen=True)
class BucketSource:
    """All objects below `s3://bucket/prefix`."""

    uri: str

    @property
    def name(self) -> str:
        bucket, prefix = parse_s3_uri(self.uri)
        return prefix.rstrip("/").rpartition("/")[2] or bucket

    def files(self) -> list[SourceFile]:
        bucket, prefix = parse_s3_uri(self.uri)
        with explain_s3_errors(f"source {self.uri}", bucket):
            objects = list(self._client.list_objects(bucket, prefix=prefix, recursive=True))
        # a key that ends in "/" is how some tools mark an empty folder
        return sorted(
            (
                listed(found.object_name.removeprefix(prefix), found.size or 0)
                for found in objects
                if not found.object_name.endswith("/")
            ),
            key=lambda file: file.path,
        )

    def read(self, path: str) -> bytes:
        bucket, prefix = parse_s3_uri(self.uri)
        with explain_s3_errors(f"source {self.uri}: {path}", bucket):
            try:
                return self._get(bucket, prefix + path)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    raise UnreadableFileError("it is gone from the bucket") from error
                if error.code != "AccessDenied":
                    raise
                self._require_listing(bucket, prefix)
                raise UnreadableFileError("access to it is denied") from error

    def __reduce__(self) -> tuple[Callable[..., "BucketSource"], tuple[object, ...]]:
        return BucketSource, (self.uri,)  # without the open connections

    def _get(self, bucket: str, key: str) -> bytes:
        response = self._client.get_object(bucket, key)
        try:
            data: bytes = response.read()
        finally:
            response.close()
            response.release_conn()
        return data

    def _require_listing(self, bucket: str, prefix: str) -> None:
        # Refused as well where the keys lost their rights: then no single object is at fault.
        next(iter(self._client.list_objects(bucket, prefix=prefix)), None)

    @functools.cached_property
    def _client(self) -> Minio:
        return connect()
