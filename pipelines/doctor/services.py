"""Checks of the services of a run: the store and MLflow."""

import os
import sqlite3
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path

from components.shared.errors import UserError
from components.shared.tracking.address import sqlite_file
from pipelines.doctor.check import INSTALL, OTHER_PLACE, Check
from pipelines.doctor.machine import existing, why_not_writable

_LOCK_TIMEOUT_S = 5.0


def check_store(uri: str) -> Check:
    """Write, read and delete a small object."""
    started = time.monotonic()
    try:
        _try_store(uri)
    except ImportError as error:
        return Check("store", "error", f"{uri} cannot be tried: {error}", INSTALL)
    except UserError as error:
        return Check("store", "error", str(error))  # its message has the advice
    milliseconds = 1000 * (time.monotonic() - started)
    return Check("store", "ok", f"{uri}: wrote, read and deleted in {milliseconds:.0f} ms")


def check_mlflow(lock_timeout_s: float = _LOCK_TIMEOUT_S, *, deep: bool = False) -> Check:
    """Try `MLFLOW_TRACKING_URI` as a run does, with a file as large as a model if `deep`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return Check("MLflow", "ok", "MLFLOW_TRACKING_URI is not set: runs go to a local file")
    if (path := sqlite_file(uri)) is None:
        return _try_mlflow(uri, deep=deep)
    if problem := why_not_writable(path.parent):
        return Check("MLflow", "error", f"{path}: {problem}", OTHER_PLACE)
    # os.path.exists: Path.exists raises where a folder above may not be entered
    if not os.path.exists(path):
        return Check("MLflow", "ok", f"{path} will be created by the first run")
    try:
        _open_for_writing(path, lock_timeout_s)
    except (sqlite3.Error, OSError) as error:
        advice = (
            "end other writers, change its rights, or move it away: the next run creates another"
        )
        return Check("MLflow", "error", f"{path}: {error}", advice)
    return _try_mlflow(uri, deep=deep)


def _try_store(uri: str) -> None:
    from components.shared.storage.store import FolderStore, open_store

    store = open_store(uri)
    root = store.root if isinstance(store, FolderStore) else None
    kept = root and existing(root)
    key, data = f"doctor-{uuid.uuid4().hex}", os.urandom(1024)
    store.write(key, data)
    if store.read(key) != data or not store.exists(key):
        raise UserError(f"store {store.uri}: what is read is not what was written")
    store.delete(key)
    with suppress(OSError):  # a run has begun to use it
        while root and root != kept:  # leave no trace of a store that was only tried
            root.rmdir()
            root = root.parent


def _try_mlflow(uri: str, *, deep: bool) -> Check:
    try:
        from components.shared.tracking.probe import MODEL_BYTES, probe

        probe(MODEL_BYTES if deep else 0)
    except ImportError as error:
        return Check("MLflow", "error", f"{uri} cannot be asked: {error}", INSTALL)
    except UserError as error:
        return Check("MLflow", "error", str(error))  # its message has the advice
    done = f" and a file of {MODEL_BYTES / 1e6:.0f} MB" if deep else ""
    return Check("MLflow", "ok", f"{uri}: stored, listed and read an artifact{done}")


def _open_for_writing(path: Path, lock_timeout_s: float) -> None:
    """Fails as late writes would, which MLflow reports late or not at all."""
    if not os.access(path, os.R_OK | os.W_OK):  # SQLite would silently open it for reading only
        raise PermissionError("it cannot be written")
    uri = f"{path.as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=lock_timeout_s)) as database:
        database.execute("BEGIN IMMEDIATE")  # asks for the right to write
        database.execute("SELECT count(*) FROM runs")  # MLflow would fill a database of another
