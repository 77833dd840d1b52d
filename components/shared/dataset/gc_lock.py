"""Unnamed volumes, and the lock under which gc removes them while an ingest may run.

An ingest may find a volume in the store that no manifest names yet, reuse it and publish a manifest
with it later. So both write before they read: gc writes a mark and then reads the manifests, ingest
writes its manifest and then looks for marks. One of them sees the other: gc keeps the volumes of
the manifest, or ingest waits for the end of gc and then checks that all volumes are there.

The age of a volume alone would not protect it, even if ingest wrote every old volume again: gc
could list the old object before that and delete the new one after it. Neither a folder nor S3 can
delete an object on the condition that it is still the listed one: its content, and so its ETag, is
the same.
"""

import contextlib
import json
import logging
import re
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Self

from components.shared.dataset.manifest import Manifest, fetch_manifest
from components.shared.dataset.volumes import volume_key
from components.shared.errors import UserError
from components.shared.storage.store import Store, StoredObject

logger = logging.getLogger(__name__)

_MARKS = "gc/"

_VOLUME = re.compile(r"volumes/([0-9a-f]{2})/\1[0-9a-f]{62}\.safetensors")
_MANIFEST = re.compile(r"datasets/([0-9a-f]{16})/manifest\.json")

_REFRESH_S = 20.0
_PAUSE = timedelta(minutes=5)  # a gc that was stopped for longer removes nothing more
_DEAD = timedelta(minutes=15)  # a mark without refresh is of a dead process; clocks may differ
_POLL_S = 1.0


def unnamed_volumes(store: Store) -> list[StoredObject]:
    """Volumes in a store that none of its manifests names.

    Raises:
        UserError: If a manifest cannot be read: its volumes are unknown.
    """
    objects = [found for found in store.objects("volumes/") if _VOLUME.fullmatch(found.key)]
    named = _named(store)  # after the listing: a version published since then is read
    return [found for found in objects if found.key not in named]


class GcLock:
    """The mark of a running gc in a store; a thread refreshes it.

    Args:
        store: Store from which volumes are removed.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._key = store, f"{_MARKS}{uuid.uuid4().hex}.json"
        self._written, self._was_stopped = datetime.now(UTC), False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, daemon=True)

    def __enter__(self) -> Self:
        """Writes the mark.

        Raises:
            UserError: If the store refuses to write or to delete.
        """
        self._store.delete(self._key)  # if this is refused, no mark is left that cannot be removed
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._store.delete(self._key)

    def check(self) -> None:
        """Checks before each removal that the mark is fresh.

        Raises:
            UserError: If this process was stopped, or the store unreachable, for so long that
                an ingest may have considered the mark dead.
        """
        if self._was_stopped or datetime.now(UTC) - self._written > _PAUSE:
            raise UserError("gc was stopped for a while and an ingest may have begun; run it again")

    def _keep_fresh(self) -> None:
        while not self._end.wait(_REFRESH_S):
            self._was_stopped |= datetime.now(UTC) - self._written > _PAUSE
            with contextlib.suppress(
                UserError
            ):  # the store is unreachable; `check` looks at the time
                self._write()

    def _write(self) -> None:
        now = datetime.now(UTC)
        self._store.write(self._key, json.dumps({"time": now.isoformat()}).encode())
        self._written = now


def dead_marks(store: Store) -> list[StoredObject]:
    """Marks of killed processes, which could not remove them."""
    return [found for found in store.objects(_MARKS) if not _is_alive(store, found.key)]


def require_volumes(store: Store, manifest: Manifest) -> None:
    """Checks that a data set version, which was just published, is complete.

    Raises:
        UserError: If volumes that were in the store have been removed since.
    """
    _wait_for_gc(store)
    stored = set(store.keys("volumes/"))
    lost = [entry for entry in manifest.volumes if volume_key(entry.digest) not in stored]
    if lost:
        raise UserError(
            f"{len(lost)} volumes of data set {manifest.dataset_id} were removed from "
            f"{store.uri} while it was ingested; ingest again: that writes them again"
        )


def _named(store: Store) -> set[str]:
    named: set[str] = set()
    for key in store.keys("datasets/"):
        found = _MANIFEST.fullmatch(key)
        if found:
            manifest = fetch_manifest(store, found[1])
            named.update(volume_key(entry.digest) for entry in manifest.volumes)
    return named


def _wait_for_gc(store: Store) -> None:
    logged = False
    while any(_is_alive(store, key) for key in store.keys(_MARKS)):
        if not logged:
            logger.info("waiting for the end of a gc, which removes volumes from %s", store.uri)
            logged = True
        time.sleep(_POLL_S)


def _is_alive(store: Store, key: str) -> bool:
    try:
        written = datetime.fromisoformat(json.loads(store.read(key))["time"])
    except KeyError:  # removed since it was listed
        return False
    return datetime.now(UTC) - written < _DEAD
