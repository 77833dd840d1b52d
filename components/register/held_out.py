"""Patients that neither model was trained on, and a model's scores of them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mlflow.entities.model_registry import ModelVersion

from components.shared.dataset.channels import Target
from components.shared.dataset.manifest import Manifest, VolumeEntry, fetch_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import fetch_split, new_to
from components.shared.errors import UserError
from components.shared.process import importing
from components.shared.scoring.scores import VolumeScore
from components.shared.tracking.champion import is_origin_known
from components.shared.tracking.refusals import explaining_files

logger = logging.getLogger(__name__)


class NotComparableError(UserError):
    """A champion that takes other channels than the data set has, or finds other targets."""


def unseen(
    champion: ModelVersion, dataset: SplitDataset, compare_on: Literal["test", "all_unseen"]
) -> list[VolumeEntry]:
    """Returns the volumes that neither candidate nor champion was trained on.

    The champion's tags name its data set version and split. A champion without them is compared
    on every test patient. If it was trained on some of these, its scores are too good, so no
    candidate is promoted wrongly.

    Args:
        champion: Registered version.
        dataset: Data set with the candidate's split.
        compare_on: `test` selects volumes of the candidate's test part that are new to the
            champion. `all_unseen` adds volumes of the champion's test part that are not in
            `dataset`.

    Raises:
        NotComparableError: If the champion finds other targets.
    """
    store = dataset.store
    if not is_origin_known(champion, store):
        logger.warning(
            "the training data of version %s are not in store %s: they may include test patients",
            champion.version,
            store.uri,
        )
        return list(dataset.entries("test"))
    manifest = fetch_manifest(store, champion.tags["dataset_id"])
    _require_targets(manifest.targets, dataset.manifest.targets)
    split = fetch_split(store, champion.tags["split_id"])
    known = [*split.entries("train", manifest), *split.entries("validation", manifest)]
    found = new_to(known, dataset.entries("test"))
    if compare_on == "all_unseen" and _is_alike(manifest, dataset.manifest):
        found += new_to(dataset.manifest.volumes, split.entries("test", manifest))
    return found


def score_model(
    model: str | Path,
    entries: Sequence[VolumeEntry],
    dataset: SplitDataset,
    threshold: float,
    device: str,
    what: str,
) -> dict[str, list[VolumeScore]]:
    """Predicts volumes with a model and scores them, by target.

    Args:
        model: Model URI or folder.
        entries: Manifest entries of the volumes.
        dataset: Data set with the store of the voxels.
        threshold: Probability from which a pixel is predicted as tumour.
        device: Device of the model.
        what: Name of the volumes in the progress log, e.g. `champion's volumes`.

    Raises:
        NotComparableError: If the model takes other channels than the data set has, or finds other
            targets.
        UserError: If the model cannot be loaded, or does not return probabilities.
    """
    with importing():  # imports torch, which a first model does not need
        from components.shared.model.segmenter import load_segmenter
        from components.shared.scoring.predicted import by_target, scored

    with explaining_files():
        segmenter = load_segmenter(model, device)
    expected, given = segmenter.channels.names, dataset.manifest.channels.names
    if expected != given:
        raise NotComparableError(
            f"it takes the channels {', '.join(expected)}, and the volumes have {', '.join(given)}"
        )
    finds, wanted = segmenter.targets, dataset.manifest.targets
    if len(finds) > 1 or len(wanted) > 1:  # older versions did not store the name of a single one
        _require_targets(finds, wanted)
    predicted = scored(segmenter, dataset, entries, threshold, what)
    return by_target(wanted, [one.scores for one in predicted])


def _require_targets(champions: Sequence[Target], ours: Sequence[Target]) -> None:
    theirs, wanted = (", ".join(target.name for target in each) for each in (champions, ours))
    if theirs != wanted:
        raise NotComparableError(f"it finds {theirs}, and the candidate {wanted}")


def _is_alike(champions: Manifest, ours: Manifest) -> bool:
    # a volume is read as `ours` declares it
    return (champions.channels.names, champions.labels, champions.targets) == (
        ours.channels.names,
        ours.labels,
        ours.targets,
    )
