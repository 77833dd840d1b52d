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
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from components.shared.dataset.manifest import Manifest, fetch_manifest
from components.shared.dataset.volumes import volume_key
from components.shared.errors import UserError
from components.shared.storage.store import Store, StoredObject

logger = logging.getLogger(__name__)

_MARKS = "gc/"

_VOLUME = re.compile(r"volumes/([0-9a-f]{2})/\1[0-9a-f]{62}\.safetensors")
_MANIFEST = re.compile(r"datasets/([0-9a-f]{16})/manifest\.json")

_REFRESH = timedelta(seconds=20)
_PAUSE = timedelta(minutes=5)  # a gc that was stopped for longer removes nothing more
_DEAD = timedelta(minutes=15)  # a mark without refresh is of a dead process; clocks may differ
_POLL_S = 1.0


def unnamed_volumes(store: Store, refresh: Callable[[], None] = lambda: None) -> list[StoredObject]:
    """Volumes in a store that none of its manifests names.

    Args:
        store: Store to search.
        refresh: Called before each manifest is read.

    Raises:
        UserError: If a manifest cannot be read: its volumes are unknown.
    """
    objects = [found for found in store.objects("volumes/") if _VOLUME.fullmatch(found.key)]
    named: set[str] = set()  # after the listing: a version published since then is read
    for found in map(_MANIFEST.fullmatch, store.keys("datasets/")):
        if found:
            refresh()
            manifest = fetch_manifest(store, found[1])
            named.update(volume_key(entry.digest) for entry in manifest.volumes)
    return [found for found in objects if found.key not in named]


@contextlib.contextmanager
def gc_lock(store: Store) -> Iterator[Callable[[], None]]:
    """Marks the store as one from which volumes are removed.

    Yields:
        A function to call before each query and removal. It keeps the mark fresh, and raises
        `UserError` if it was not called for so long that an ingest may consider the mark dead.

    Raises:
        UserError: If the store refuses to write or to delete.
    """
    key = f"{_MARKS}{uuid.uuid4().hex}"
    written = datetime.now(UTC)

    def refresh() -> None:
        nonlocal written
        now = datetime.now(UTC)
        if now - written > _PAUSE:
            raise UserError("gc was stopped for a while and an ingest may have begun; run it again")
        if now - written > _REFRESH:
            store.write(key, b"")
            written = now

    store.delete(key)  # if this is refused, no mark is left that cannot be removed
    store.write(key, b"")
    try:
        yield refresh
    finally:
        store.delete(key)


def dead_marks(store: Store) -> list[StoredObject]:
    """Marks of killed processes, which could not remove them."""
    return [mark for mark in store.objects(_MARKS) if not _is_alive(mark)]


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


def _wait_for_gc(store: Store) -> None:
    logged = False
    while any(map(_is_alive, store.objects(_MARKS))):
        if not logged:
            logger.info("waiting for the end of a gc, which removes volumes from %s", store.uri)
            logged = True
        time.sleep(_POLL_S)


def _is_alive(mark: StoredObject) -> bool:
    return datetime.now(UTC) - mark.modified < _DEAD
