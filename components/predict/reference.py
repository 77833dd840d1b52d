"""The training data of a model version, with which new cases are compared."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.predict.model import registered_version
from components.shared.dataset.channels import Channels
from components.shared.dataset.intensity import channel_intensity
from components.shared.dataset.manifest import ChannelIntensity, VolumeEntry, fetch_manifest
from components.shared.dataset.split import fetch_split
from components.shared.dataset.volumes import Mask, Volume
from components.shared.scoring.robust import GRAY_UNIT, usual
from components.shared.storage.store import Store
from components.shared.tracking.champion import is_origin_known
from components.shared.tracking.refusals import explaining

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Training volumes of a model version, as the manifest describes them."""

    entries: Sequence[VolumeEntry]
    channels: Channels

    def intensity_score(self, volume: Volume) -> float | None:
        """Largest robust z-score of a volume's drift measures of intensity.

        They are median and 99th percentile of each channel.

        Returns:
            0 or more; `None` if the volume has other channels or voxels.
        """
        if volume.channels != self.channels:
            return None
        found = [channel_intensity(each) for each in np.moveaxis(volume.image, -1, 0)]
        trained = np.array([_measures(entry.intensity) for entry in self.entries])
        scores = [
            abs(value - (of := usual(values, GRAY_UNIT)).center) / of.unit
            for value, values in zip(_measures(found), trained.T, strict=True)
        ]
        return float(max(scores))

    def has_size(self, mask: Mask, voxel_ml: float | None) -> bool:
        """Returns whether a prediction is as large as a structure of the training data.

        Milliliters are compared where all spacings are known, else pixels.
        """
        pixels = int(mask.sum())
        known = [entry.tumour_ml for entry in self.entries if entry.tumour_ml is not None]
        if voxel_ml is not None and len(known) == len(self.entries):
            return min(known) <= pixels * voxel_ml <= max(known)
        sizes = [entry.tumour_pixels for entry in self.entries]
        return min(sizes) <= pixels <= max(sizes)


@explaining()
def find_training_data(model: str, store: Store) -> TrainingData | None:
    """Reads the training part of a version's data set; `None` if the store lacks it.

    Args:
        model: URI `models:/name/version`.
        store: Store to search.
    """
    version = registered_version(model)
    if not is_origin_known(version, store):
        logger.warning(
            "the training data of %s are not in store %s: intensities and sizes are not compared",
            model,
            store.uri,
        )
        return None
    manifest = fetch_manifest(store, version.tags["dataset_id"])
    split = fetch_split(store, version.tags["split_id"])
    return TrainingData(split.entries("train", manifest), manifest.channels)


def _measures(intensity: Sequence[ChannelIntensity]) -> list[float]:
    return [float(value) for each in intensity for value in (each.p50, each.p99)]
