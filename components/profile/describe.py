"""Description of a data set version, as the profile's JSON has it."""

from collections import Counter

import numpy as np

from components.profile.attributes import Attribute, describe_attributes
from components.profile.drift import Drift, measure_drift
from components.profile.limits import Limit, check_limits
from components.profile.measures import Choice, Measures, Numbers, Quantiles, measure, quantiles
from components.profile.outliers import Outlier, find_outliers
from components.profile.settings import ProfileSettings
from components.shared.config import Record
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import Manifest

_MOST_OUTLIERS = 200
SPACING_AXES = ("slices", "rows", "columns")


class Counts(Record):
    """Sizes of a data set or of one of its sites."""

    patients: int
    volumes: int
    slices: int
    tumour_slices: int
    tumour_volumes: int
    lacking_sequence: int
    tumour_pixels: Quantiles | None
    tumour_ml: Quantiles | None


class Channel(Record):
    """Quantiles over the volumes of the intensities (0 to 255) of one channel.

    Attributes:
        bright: Quantiles of the volumes' 99th percentiles.
        lacking: Number of volumes in which the channel is a copy of the reference.
        black: Quantiles of the delivered values of gray level 0.
        white: Quantiles of the delivered values of gray level 255.
    """

    channel: str
    median: Quantiles | None
    bright: Quantiles | None
    lacking: int
    black: Quantiles | None
    white: Quantiles | None


class Profile(Record):
    """The description of one data set version.

    Attributes:
        counts: Counts of the whole data set; `tumour_pixels` and `tumour_ml` over volumes with
            tumour, `tumour_ml` only if the spacing of all volumes is known.
        voxel_types: Number of volumes by type of the delivered voxels.
        spacing_mm: Quantiles of the distances of slices, rows and columns.
        spacing_unknown: Number of volumes of unknown spacing.
        slices: Quantiles of slices per volume.
        tumour_share: Quantiles of the fraction of a volume's slices with tumour.
        outliers: The most extreme outliers, of `outliers_found`.
        drift: Comparison with the reference, if there is one.
    """

    dataset_id: str
    counts: Counts
    sites: dict[str, Counts]
    voxel_types: dict[str, int]
    spacing_mm: dict[str, Quantiles | None]
    spacing_unknown: int
    slices: Quantiles | None
    tumour_share: Quantiles | None
    channels: tuple[Channel, ...]
    attributes: tuple[Attribute, ...]
    outliers: tuple[Outlier, ...]
    outliers_found: int
    limits: tuple[Limit, ...]
    drift: Drift | None
    ingest: IngestAccount


def describe(
    manifest: Manifest,
    ingest: IngestAccount,
    settings: ProfileSettings,
    reference: Manifest | None = None,
) -> tuple[Profile, Measures]:
    """Describes a data set from its manifest alone, in linear time.

    Returns:
        The profile, and its arrays for charts.
    """
    measures = measure(manifest)
    known = np.isfinite(measures.spacing_mm[:, 0])
    outliers = find_outliers(measures)
    profile = Profile(
        dataset_id=manifest.dataset_id,
        counts=_count(measures, np.full(len(measures.volume), True)),
        sites={
            str(site): _count(measures, measures.site == site) for site in np.unique(measures.site)
        },
        voxel_types=dict(Counter(sorted(entry.dtype for entry in manifest.volumes))),
        spacing_mm={
            axis: quantiles(spacing[known])
            for axis, spacing in zip(SPACING_AXES, measures.spacing_mm.T, strict=True)
        },
        spacing_unknown=int((~known).sum()),
        slices=quantiles(measures.slices),
        tumour_share=quantiles(measures.tumour_share),
        channels=tuple(
            _channel(manifest, measures, index, name)
            for index, name in enumerate(manifest.channels.names)
        ),
        attributes=tuple(describe_attributes(manifest)),
        outliers=tuple(outliers[:_MOST_OUTLIERS]),
        outliers_found=len(outliers),
        limits=tuple(check_limits(measures, len(ingest.quarantined), settings)),
        drift=measure_drift(manifest, reference, settings.max_drift) if reference else None,
        ingest=ingest,
    )
    return profile, measures


def _count(measures: Measures, chosen: Choice) -> Counts:
    pixels: Numbers = measures.tumour_pixels[chosen]
    with_tumour = measures.tumour_pixels > 0
    return Counts(
        patients=len(np.unique(measures.patient[chosen])),
        volumes=int(chosen.sum()),
        slices=int(measures.slices[chosen].sum()),
        tumour_slices=int(measures.tumour_slices[chosen].sum()),
        tumour_volumes=int((pixels > 0).sum()),
        lacking_sequence=int(measures.lacks_sequence[chosen].sum()),
        tumour_pixels=quantiles(pixels[pixels > 0]),
        tumour_ml=quantiles(measures.tumour_ml[chosen & with_tumour]) if measures.in_mm else None,
    )


def _channel(manifest: Manifest, measures: Measures, index: int, name: str) -> Channel:
    levels = [entry.intensity[index] for entry in manifest.volumes]
    return Channel(
        channel=name,
        median=quantiles(measures.median_intensity[:, index]),
        bright=quantiles(measures.bright_intensity[:, index]),
        lacking=sum(name in entry.missing for entry in manifest.volumes),
        black=quantiles([level.black for level in levels]),
        white=quantiles([level.white for level in levels]),
    )
