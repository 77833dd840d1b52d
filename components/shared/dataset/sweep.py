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
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from components.shared.dataset.manifest import Manifest, fetch_manifest
from components.shared.dataset.volumes import volume_key
from components.shared.errors import UserError
from components.shared.storage.store import Store, StoredObject

logger = logging.getLogger(__name__)

MARKS = "gc/"

_VOLUME = re.compile(r"volumes/([0-9a-f]{2})/\1[0-9a-f]{62}\.safetensors")
_MANIFEST = re.compile(r"datasets/([0-9a-f]{16})/manifest\.json")

_REFRESH = timedelta(minutes=1)
_PAUSE = timedelta(minutes=20)  # who was stopped for longer removes nothing more
_DEAD = timedelta(hours=1)  # a mark that is not refreshed is nobody's: clocks may differ a little
_POLL_S = 1.0


def unnamed_volumes(store: Store) -> list[StoredObject]:
    """The volumes in a store that none of its manifests names.

    Raises:
        UserError: If a manifest cannot be read: its volumes could not be told from the others.
    """
    objects = [found for found in store.objects("volumes/") if _VOLUME.fullmatch(found.key)]
    named = _named(store)  # after the listing: what is published meanwhile is named
    return [found for found in objects if found.key not in named]


@contextlib.contextmanager
def sweeping(store: Store) -> Iterator[Callable[[], None]]:
    """Leaves the mark of one who removes volumes, and takes it away at the end.

    Yields:
        To be called before each removal; raises `UserError` if this process was stopped for so
        long that others may take its mark for a dead one's.

    Raises:
        UserError: If the store refuses to write or to delete.
    """
    key, now = f"{MARKS}{uuid.uuid4().hex}.json", datetime.now(UTC)
    store.delete(key)  # refused here, it leaves no mark that nobody can take away
    _write_mark(store, key, now)
    last = [now]

    def keep() -> None:
        now = datetime.now(UTC)
        if now - last[0] > _PAUSE:
            raise UserError("gc was stopped for a while and an ingest may have begun; run it again")
        if now - last[0] > _REFRESH:
            _write_mark(store, key, now)
            last[0] = now

    try:
        yield keep
    finally:
        store.delete(key)


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
    while any(_is_alive(store, key) for key in store.keys(MARKS)):
        if not told:
            logger.info("volumes are being removed from %s: waiting for the end of it", store.uri)
            told = True
        time.sleep(_POLL_S)


def _write_mark(store: Store, key: str, now: datetime) -> None:
    store.write(key, json.dumps({"time": now.isoformat()}).encode())


def _is_alive(store: Store, key: str) -> bool:
    try:
        written = datetime.fromisoformat(json.loads(store.read(key))["time"])
    except KeyError:  # taken away since it was listed
        return False
    return datetime.now(UTC) - written < _DEAD
