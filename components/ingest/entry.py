"""A volume's entry in the manifest."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from components.shared.dataset.channels import LGG_LABELS, LGG_TARGETS, Channels, Target
from components.shared.dataset.intensity import SAMPLED, channel_intensity
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.volumes import EncodedVolume, LabelMap, Volume, Voxels
from components.shared.reading.scans import ScanName


def describe_volume(
    name: ScanName,
    volume: Volume,
    encoded: EncodedVolume,
    labels: Mapping[str, int] = LGG_LABELS,
    target: Target = LGG_TARGETS[0],
) -> VolumeEntry:
    """Builds the entry, without attributes, of a volume that is stored as `encoded`.

    Args:
        name: Names of volume and patient.
        volume: Voxels with the label map.
        encoded: The volume as it is stored.
        labels: Values of the label map.
        target: First target of the data set.
    """
    slices, height, width = volume.mask.shape
    pixels = {value: _pixels(volume.mask, value) for value in {*labels.values(), *target.labels}}
    tumour = np.sum([pixels[value] for value in target.labels], axis=0)
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
        missing=_missing_channels(volume.image, volume.channels),
        intensity=tuple(map(channel_intensity, np.moveaxis(volume.image, -1, 0))),
        attributes={},
        dtype=volume.image.dtype.name,
        geometry=volume.geometry,
        label_voxels=_label_voxels(pixels, labels),
    )


def _pixels(mask: LabelMap, value: int) -> npt.NDArray[np.intp]:
    """Pixels of one value in each slice."""
    return np.array([np.count_nonzero(plane == value) for plane in mask])


def _label_voxels(
    pixels: Mapping[int, npt.NDArray[np.intp]], labels: Mapping[str, int]
) -> dict[str, int]:
    if len(labels) == 1:
        return {}
    return {name: int(pixels[value].sum()) for name, value in labels.items()}


def _missing_channels(image: Voxels, channels: Channels) -> tuple[str, ...]:
    reference = image[..., channels.reference_index]
    return tuple(
        name
        for channel, name in enumerate(channels.names)
        if name != channels.reference and _equal(image[..., channel], reference)
    )


def _equal(one: Voxels, other: Voxels) -> bool:
    # most channels differ somewhere in a sixteenth of the voxels already
    return np.array_equal(one[SAMPLED], other[SAMPLED]) and np.array_equal(one, other)
