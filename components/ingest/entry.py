"""A volume's entry in the manifest."""

import numpy as np
import numpy.typing as npt

from components.shared.dataset.manifest import ChannelIntensity, VolumeEntry
from components.shared.dataset.volumes import CHANNELS, FLAIR, EncodedVolume, Volume, Voxels
from components.shared.reading.tcga import ScanName

_STEP = 4  # every fourth row and column: percentiles move by less than one gray value


def describe_volume(name: ScanName, volume: Volume, encoded: EncodedVolume) -> VolumeEntry:
    """Builds the entry, without attributes, of a volume that is stored as `encoded`."""
    slices, height, width = volume.mask.shape
    tumour = np.count_nonzero(volume.mask, axis=(1, 2))
    return VolumeEntry(
        volume=name.volume,
        patient=name.patient,
        site=name.site,
        date=name.date,
        digest=encoded.digest,
        image_digest=encoded.image_digest,
        slices=slices,
        height=height,
        width=width,
        tumour_pixels=int(tumour.sum()),
        tumour_slices=int(np.count_nonzero(tumour)),
        missing=_missing_sequences(volume.image),
        intensity=tuple(_intensity(volume.image[..., channel]) for channel in range(len(CHANNELS))),
        attributes={},
    )


def _missing_sequences(image: Voxels) -> tuple[str, ...]:
    return tuple(
        name
        for channel, name in enumerate(CHANNELS)
        if channel != FLAIR and _equal(image[..., channel], image[..., FLAIR])
    )


def _equal(one: Voxels, other: Voxels) -> bool:
    # most channels differ somewhere in a sixteenth of the voxels already
    sample = np.s_[:, ::_STEP, ::_STEP]
    return np.array_equal(one[sample], other[sample]) and np.array_equal(one, other)


def _intensity(channel: Voxels) -> ChannelIntensity:
    histogram = np.bincount(channel[:, ::_STEP, ::_STEP].ravel(), minlength=256)
    total = int((histogram * np.arange(256)).sum())
    return ChannelIntensity(
        mean=round(total / int(histogram.sum()), 2),
        p1=_percentile(histogram, 1),
        p50=_percentile(histogram, 50),
        p99=_percentile(histogram, 99),
    )


def _percentile(histogram: npt.NDArray[np.intp], percent: int) -> int:
    """The lowest gray value that at least `percent` % of the voxels do not exceed."""
    return int(np.searchsorted(histogram.cumsum() * 100, percent * int(histogram.sum())))
