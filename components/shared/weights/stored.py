"""Weights in the store: fetched once, and found again by their source or their digest.

`weights/<sha256>` has the bytes of a file. `weights/sources/<digest of the source>.json` names the
file that was fetched from a source. Steps read only these, so they need no network.
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, ValidationError

from components.shared.config import Record
from components.shared.dataset.manifest import canonical_json, short_digest
from components.shared.errors import UserError
from components.shared.storage.store import Store, file_digest
from components.shared.weights.sources import fetch_source, is_source, local_path

logger = logging.getLogger(__name__)

WEIGHTS = "weights/"
SOURCES = f"{WEIGHTS}sources/"


class StoredWeights(Record):
    """Weights that were fetched from a source.

    Attributes:
        source: URI, or `imagenet:ENCODER`.
        sha256: Digest of the file.
        bytes: Size of the file.
        config: `config.json` of a model that brainseg stored; empty for other weights.
    """

    source: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int
    config: str = ""

    @property
    def key(self) -> str:
        """Key of the file in the store."""
        return f"{WEIGHTS}{self.sha256}"


def fetch_weights(store: Store, source: str) -> StoredWeights:
    """Fetches weights into the store, and replaces what was fetched from this source before.

    Raises:
        UserError: If they cannot be fetched, are not weights, or the store refuses.
    """
    from components.shared.model.weights_file import read_weights  # torch takes seconds

    with TemporaryDirectory(prefix="brainseg-weights-") as folder:
        fetched = fetch_source(source, Path(folder))
        read_weights(fetched.weights, source)
        found = StoredWeights(
            source=source,
            sha256=file_digest(fetched.weights),
            bytes=fetched.weights.stat().st_size,
            config=fetched.config,
        )
        if not store.exists(found.key):
            store.upload(fetched.weights, found.key)
    store.write(_source_key(source), found.model_dump_json().encode())
    return found


def require_weights(store: Store, source: str) -> StoredWeights:
    """Returns weights of the store, fetched before or now.

    A file on this machine may have changed: it is read again.

    Raises:
        UserError: If they are not in the store and cannot be fetched.
    """
    path = local_path(source)
    found = None if path and path.exists() else find_weights(store, source)
    if found is None:
        logger.info("fetching weights %s into the store", source)
        found = fetch_weights(store, source)
    return found


def find_weights(store: Store, source: str) -> StoredWeights | None:
    """Returns the weights that were fetched from a source; `None` if the store lacks them."""
    try:
        found = _read(store, _source_key(source))
    except KeyError:
        return None
    return found if store.exists(found.key) else None


def list_weights(store: Store) -> list[StoredWeights]:
    """Lists the weights in a store by source."""
    found = (_read(store, key) for key in store.keys(SOURCES))
    return sorted(found, key=lambda one: one.source)


def weights_path(store: Store, weights: StoredWeights, cache: Path) -> Path:
    """Returns a local file of stored weights: the store's own, or a copy in the cache.

    Raises:
        UserError: If the store lacks it, or its bytes were changed.
    """
    path = store.local_path(weights.key) or cache / weights.key
    again = f"run `brainseg weights fetch {weights.source} --store {store.uri}`"
    if not path.exists():
        try:
            store.download(weights.key, path)
        except KeyError as error:
            raise UserError(f"store {store.uri} lacks {weights.key}; {again}") from error
    if file_digest(path) != weights.sha256:
        raise UserError(f"{path} was changed: its digest differs; delete it and {again}")
    return path


def _source_key(source: str) -> str:
    if not is_source(source):
        raise UserError(f"weights {source!r} name no source; give an encoder or a URI")
    return f"{SOURCES}{short_digest(canonical_json({'source': source}))}.json"


def _read(store: Store, key: str) -> StoredWeights:
    try:
        return StoredWeights.model_validate_json(store.read(key))
    except ValidationError as error:
        raise UserError(
            f"{store.uri}/{key} is damaged; delete it and fetch its weights again"
        ) from error
