"""Today's test patients, and the champion on them."""

import logging
from collections.abc import Sequence

from mlflow.entities.model_registry import ModelVersion

from components.register.settings import RegisterSettings
from components.shared.dataset.manifest import VolumeEntry, fetch_manifest, manifest_key
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import fetch_split, split_key
from components.shared.progress import track
from components.shared.scoring.scores import VolumeScore, score_volume
from components.shared.scoring.segmenter import load_segmenter

logger = logging.getLogger(__name__)


def unseen(champion: ModelVersion, dataset: SplitDataset) -> list[VolumeEntry]:
    """Returns the test volumes that a model has not learned from.

    What it learned from is in the data set version and split that its tags name. A model
    without them is compared on every test patient: if it has seen some, that speaks for
    it and against the candidate, so nothing is promoted wrongly.
    """
    dataset_id = champion.tags.get("dataset_id", "")
    split_id = champion.tags.get("split_id", "")
    store = dataset.store
    if not (store.exists(manifest_key(dataset_id)) and store.exists(split_key(split_id))):
        logger.warning(
            "what version %s learned from is not in store %s: it may have seen test patients",
            *(champion.version, store.uri),
        )
        return list(dataset.entries("test"))
    manifest, split = fetch_manifest(store, dataset_id), fetch_split(store, split_id)
    used = [*split.entries("train", manifest), *split.entries("validation", manifest)]
    known = {entry.patient for entry in used} | {entry.image_digest for entry in used}
    return [
        entry
        for entry in dataset.entries("test")
        if not known & {entry.patient, entry.image_digest}
    ]


def score_champion(
    champion: ModelVersion,
    entries: Sequence[VolumeEntry],
    dataset: SplitDataset,
    settings: RegisterSettings,
) -> list[VolumeScore]:
    """Predicts the volumes with a registered version and scores them.

    Raises:
        UserError: If the version cannot be loaded, or gives something else than probabilities.
    """
    segmenter = load_segmenter(f"models:/{champion.name}/{champion.version}", settings.device)
    scores = []
    for entry in track(entries, len(entries), "champion's volumes"):
        volume = dataset.volume(entry)
        probability = segmenter(volume.image, entry.volume)
        scores.append(score_volume(entry, volume, probability, settings.threshold))
    return scores
