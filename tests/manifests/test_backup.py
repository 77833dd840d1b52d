"""The backup's script as its pod runs it: a program, with a real S3 server."""

import os
import subprocess
import sys

import pytest

from components.shared.storage.store import open_store
from tests.manifests.conftest import MANIFESTS

SCRIPT = MANIFESTS / "base" / "backup" / "backup.py"


@pytest.fixture
def backup(s3_store_uri, tmp_path):
    """Runs the script on a file of the given content; returns what it says and the file's end."""
    file = tmp_path / "mlflow.dump"

    def run(command, content="", **changes):
        file.write_text(content)
        variables = {"BACKUP_DESTINATION": s3_store_uri, "BACKUP_KEEP": "2"} | changes
        done = subprocess.run(
            [sys.executable, SCRIPT, command, file],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        run.code, run.content = done.returncode, file.read_text()
        return done.stdout + done.stderr

    return run


def names(said):
    return [line.rpartition("/")[2].split(",")[0] for line in said.splitlines()]


def test_the_newest_backup_comes_back(backup):
    backup("upload", "old")
    backup("upload", "new")
    backup("download")
    assert (backup.code, backup.content) == (0, "new")


def test_a_named_backup_comes_back(backup):
    (old,) = names(backup("upload", "old"))
    backup("upload", "new")
    backup("download", BACKUP_NAME=old)
    assert (backup.code, backup.content) == (0, "old")


def test_a_backup_that_is_not_there_is_told_with_those_that_are(backup):
    (only,) = names(backup("upload", "x"))
    said = backup("download", BACKUP_NAME="mlflow-tomorrow.dump")
    assert backup.code == 1
    assert said.startswith("brainseg error: no backup mlflow-tomorrow.dump in s3://")
    assert only in said


def test_only_the_oldest_backups_beyond_the_limit_go(backup, s3_store_uri):
    store = open_store(s3_store_uri)
    store.write("mlflow-2020.txt", b"somebody's")
    written = [names(backup("upload", str(number)))[0] for number in range(3)]
    assert sorted(store.keys("")) == sorted([*written[1:], "mlflow-2020.txt"])


def test_a_bucket_that_is_not_there_is_one_message(backup):
    said = backup("upload", "x", BACKUP_DESTINATION="s3://brainseg-no-such-bucket/backups")
    assert backup.code == 1
    assert said.startswith("brainseg error: s3://brainseg-no-such-bucket/backups cannot be used:")
    assert "Traceback" not in said


def test_an_s3_service_that_is_away_is_one_message(backup):
    said = backup("upload", "x", AWS_ENDPOINT_URL_S3="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    assert backup.code == 1
    assert "Could not connect" in said
    assert "Traceback" not in said
