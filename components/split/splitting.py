"""Steps split and fold: assign patients and store the splits."""

import logging

from components.shared.dataset.manifest import Manifest
from components.shared.dataset.split import Split, fetch_split, split_key
from components.shared.errors import UserError
from components.shared.storage.store import Store
from components.split.assign import (
    assign_folds,
    assign_members,
    assign_split,
    describe_split,
)
from components.split.settings import FoldSettings, SplitSettings

logger = logging.getLogger(__name__)


def split_dataset(manifest: Manifest, settings: SplitSettings, store: Store) -> Split:
    """Divides a data set's patients, and stores the split.

    Raises:
        UserError: If the split to follow is not in the store, or no split can be made.
    """
    previous = fetch_split(store, settings.previous) if settings.previous else None
    made = assign_split(manifest, settings, previous)
    _keep(made, manifest, store)
    return made


def fold_dataset(
    manifest: Manifest, settings: FoldSettings, store: Store, split_id: str = ""
) -> dict[str, str]:
    """Assigns a data set's patients to folds, and stores each fold's split.

    Args:
        manifest: Manifest of the data set.
        settings: Number of folds, seed and fraction.
        store: Store of the splits.
        split_id: Id of a split in the store. Its test part is that of every fold, and the fold
            itself is a validation part. If it is empty, each fold is a test part.

    Returns:
        Ids of the splits by label: `fold-1`, `fold-2`, ...

    Raises:
        UserError: If there are too few patients, or too few with tumour, for so many folds.
    """
    try:
        if split_id:
            made = assign_members(manifest, settings, fetch_split(store, split_id))
        else:
            made = assign_folds(manifest, settings)
    except UserError as error:
        raise UserError(
            f"{settings.folds} folds of this data set are not possible; lower fold.folds or add "
            f"patients: {error}"
        ) from error
    folds = {f"fold-{number}": split for number, split in enumerate(made, start=1)}
    for label, split in folds.items():
        _keep(split, manifest, store, f"{label} ")
    return {label: split.split_id for label, split in folds.items()}


def _keep(split: Split, manifest: Manifest, store: Store, label: str = "") -> None:
    store.write(split_key(split.split_id), split.to_json())
    for line in describe_split(split, manifest):
        logger.info("%s%s", label, line)
