"""A source under a prefix of an S3 bucket."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from minio import Minio

from components.shared.s3 import connect, explain_s3_errors, parse_s3_uri
from components.shared.sources.files import SourceFile


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
                SourceFile(found.object_name.removeprefix(prefix), found.size or 0)
                for found in objects
                if not found.object_name.endswith("/")
            ),
            key=lambda file: file.path,
        )

    def read(self, path: str) -> bytes:
        bucket, prefix = parse_s3_uri(self.uri)
        with explain_s3_errors(f"source {self.uri}: {path}", bucket):
            response = self._client.get_object(bucket, prefix + path)
            try:
                data: bytes = response.read()
            finally:
                response.close()
                response.release_conn()
        return data

    def __reduce__(self) -> tuple[Callable[..., "BucketSource"], tuple[object, ...]]:
        return BucketSource, (self.uri,)  # without the open connections

    @functools.cached_property
    def _client(self) -> Minio:
        return connect()
