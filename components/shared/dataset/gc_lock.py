"""Volumes that no data set names: finding them, and removing them beside an ingest that runs.

An ingest may find a volume in the store that no manifest names yet, leave it as it is and publish
a manifest with it later. So both write before they read: who removes volumes leaves a mark and
then reads the manifests, ingest writes its manifest and then looks for marks. One of them sees
the other: the manifest keeps its volumes, or ingest waits and then looks whether all are there.
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
_PAUSE = timedelta(minutes=5)  # who was stopped for longer removes nothing more
_DEAD = timedelta(minutes=15)  # a mark that is not refreshed is nobody's; clocks may differ
_POLL_S = 1.0


def unnamed_volumes(store: Store) -> list[StoredObject]:
    """The volumes in a store that none of its manifests names.

    Raises:
        UserError: If a manifest cannot be read: its volumes could not be told from the others.
    """
    objects = [found for found in store.objects("volumes/") if _VOLUME.fullmatch(found.key)]
    named = _named(store)  # after the listing: what is published meanwhile is named
    return [found for found in objects if found.key not in named]


class Sweep:
    """The mark of one who removes volumes; a thread keeps it fresh.

    Args:
        store: Where they are removed.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._key = store, f"{_MARKS}{uuid.uuid4().hex}.json"
        self._written, self._was_stopped = datetime.now(UTC), False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, daemon=True)

    def __enter__(self) -> Self:
        """Leaves the mark.

        Raises:
            UserError: If the store refuses to write or to delete.
        """
        self._store.delete(self._key)  # refused here, it leaves no mark that nobody can take away
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._store.delete(self._key)

    def check(self) -> None:
        """To be called before each removal.

        Raises:
            UserError: If this process was stopped, or the store away, for so long that an ingest
                may have taken the mark for a dead one's.
        """
        if self._was_stopped or datetime.now(UTC) - self._written > _PAUSE:
            raise UserError("gc was stopped for a while and an ingest may have begun; run it again")

    def _keep_fresh(self) -> None:
        while not self._end.wait(_REFRESH_S):
            self._was_stopped |= datetime.now(UTC) - self._written > _PAUSE
            with contextlib.suppress(UserError):  # the store is away; `check` looks at the time
                self._write()

    def _write(self) -> None:
        now = datetime.now(UTC)
        self._store.write(self._key, json.dumps({"time": now.isoformat()}).encode())
        self._written = now


def dead_marks(store: Store) -> list[StoredObject]:
    """The marks of those who were killed before they could take them away."""
    return [found for found in store.objects(_MARKS) if not _is_alive(store, found.key)]


def require_volumes(store: Store, manifest: Manifest) -> None:
    """Makes sure that a version which was just published is whole.

    Raises:
        UserError: If volumes that were in the store before have been removed meanwhile.
    """
    _wait_for_sweeps(store)
    stored = set(store.keys("volumes/"))
    lost = [entry for entry in manifest.volumes if volume_key(entry.digest) not in stored]
    if lost:
        raise UserError(
            f"{len(lost)} volumes of data set {manifest.dataset_id} were removed from "
            f"{store.uri} while it was ingested; ingest again: they are written anew"
        )


def _named(store: Store) -> set[str]:
    named: set[str] = set()
    for key in store.keys("datasets/"):
        found = _MANIFEST.fullmatch(key)
        if found:
            manifest = fetch_manifest(store, found[1])
            named.update(volume_key(entry.digest) for entry in manifest.volumes)
    return named


def _wait_for_sweeps(store: Store) -> None:
    told = False
    while any(_is_alive(store, key) for key in store.keys(_MARKS)):
        if not told:
            logger.info("volumes are being removed from %s: waiting for the end of it", store.uri)
            told = True
        time.sleep(_POLL_S)


def _is_alive(store: Store, key: str) -> bool:
    try:
        written = datetime.fromisoformat(json.loads(store.read(key))["time"])
    except KeyError:  # taken away since it was listed
        return False
    return datetime.now(UTC) - written < _DEAD
