"""Puts a dump of MLflow's database into S3, or fetches one.

backup.py upload FILE           as NAME-<time>.dump; of these, the oldest beyond BACKUP_KEEP go
backup.py download FILE         the newest one, or the one that BACKUP_NAME names
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

NAME = "mlflow"


def main() -> None:
    """Runs one command; a failure ends with a message."""
    command, file = sys.argv[1:]
    destination = os.environ["BACKUP_DESTINATION"]
    bucket, prefix = urlsplit(destination).netloc, urlsplit(destination).path.strip("/")
    folder = Folder(boto3.client("s3"), bucket, f"{prefix}/{NAME}-" if prefix else f"{NAME}-")
    try:
        if command == "upload":
            folder.upload(Path(file), keep=int(os.environ["BACKUP_KEEP"]))
        else:
            folder.download(Path(file), os.environ.get("BACKUP_NAME", ""))
    except (Boto3Error, BotoCoreError, ClientError) as error:
        sys.exit(f"brainseg error: {destination} cannot be used: {error}")


class Folder:
    """The backups in a bucket; their names sort by time."""

    def __init__(self, s3: BaseClient, bucket: str, prefix: str) -> None:
        self._s3, self._bucket, self._prefix = s3, bucket, prefix

    def upload(self, file: Path, keep: int) -> None:
        """Writes a new backup, and only then removes old ones."""
        key = f"{self._prefix}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.dump"
        self._s3.upload_file(str(file), self._bucket, key)
        print_line(f"wrote s3://{self._bucket}/{key}, {file.stat().st_size} bytes")
        for old in self._keys()[:-keep]:
            self._s3.delete_object(Bucket=self._bucket, Key=old)
            print_line(f"removed s3://{self._bucket}/{old}")

    def download(self, file: Path, name: str) -> None:
        """Fetches the backup of that name (the part behind the last slash), or the newest."""
        keys = self._keys()
        wanted = [key for key in keys if key.rpartition("/")[2] == name] if name else keys
        if not wanted:
            there = ", ".join(key.rpartition("/")[2] for key in keys[-10:]) or "none"
            sys.exit(
                f"brainseg error: no backup {name} in s3://{self._bucket}; newest there: {there}"
            )
        self._s3.download_file(self._bucket, wanted[-1], str(file))
        print_line(f"read s3://{self._bucket}/{wanted[-1]}, {file.stat().st_size} bytes")

    def _keys(self) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return sorted(key for key in found if key.endswith(".dump"))


def print_line(line: str) -> None:
    """A line of the pod's log."""
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
