"""The whole of the split step: assigns the patients and keeps the split in the store."""

import logging

from components.shared.dataset.manifest import Manifest
from components.shared.dataset.split import Split, fetch_split, split_key
from components.shared.storage.store import Store
from components.split.assign import assign_split, describe_split
from components.split.settings import SplitSettings

logger = logging.getLogger(__name__)


def split_dataset(manifest: Manifest, settings: SplitSettings, store: Store) -> Split:
    """Divides a data set's patients, and keeps the split for those that follow it.

    Args:
        manifest: The data set.
        settings: Method, seed, fractions, and the split to follow.
        store: Has the split to follow; gets the new one.

    Raises:
        UserError: If the split to follow is not in the store, or no split can be made.
    """
    previous = fetch_split(store, settings.previous) if settings.previous else None
    made = assign_split(manifest, settings, previous)
    store.write(split_key(made.split_id), made.to_json())
    for line in describe_split(made, manifest):
        logger.info(line)
    return made
