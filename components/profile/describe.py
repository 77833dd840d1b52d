"""Description of a data set version, as the profile's JSON has it."""

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
from components.shared.dataset.volumes import CHANNELS

_MOST_OUTLIERS = 200


class Counts(Record):
    """Sizes of a data set or of one of its sites."""

    patients: int
    volumes: int
    slices: int
    tumour_slices: int
    tumour_volumes: int
    lacking_sequence: int
    tumour_pixels: Quantiles | None


class Channel(Record):
    """Quantiles over the volumes of the intensities (0 to 255) of one channel.

    Attributes:
        bright: Quantiles of the volumes' 99th percentiles.
        lacking: Number of volumes in which the channel is a copy of FLAIR.
    """

    channel: str
    median: Quantiles | None
    bright: Quantiles | None
    lacking: int


class Profile(Record):
    """The description of one data set version.

    Attributes:
        counts: Counts of the whole data set; `tumour_pixels` over volumes with tumour.
        slices: Quantiles of slices per volume.
        tumour_share: Quantiles of the fraction of a volume's slices with tumour.
        outliers: The most extreme outliers, of `outliers_found`.
        drift: Comparison with the reference, if there is one.
    """

    dataset_id: str
    counts: Counts
    sites: dict[str, Counts]
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
    outliers = find_outliers(measures)
    profile = Profile(
        dataset_id=manifest.dataset_id,
        counts=_count(measures, np.full(len(measures.volume), True)),
        sites={
            str(site): _count(measures, measures.site == site) for site in np.unique(measures.site)
        },
        slices=quantiles(measures.slices),
        tumour_share=quantiles(measures.tumour_share),
        channels=tuple(_channel(manifest, measures, index) for index in range(len(CHANNELS))),
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
    return Counts(
        patients=len(np.unique(measures.patient[chosen])),
        volumes=int(chosen.sum()),
        slices=int(measures.slices[chosen].sum()),
        tumour_slices=int(measures.tumour_slices[chosen].sum()),
        tumour_volumes=int((pixels > 0).sum()),
        lacking_sequence=int(measures.lacks_sequence[chosen].sum()),
        tumour_pixels=quantiles(pixels[pixels > 0]),
    )


def _channel(manifest: Manifest, measures: Measures, index: int) -> Channel:
    name = CHANNELS[index]
    return Channel(
        channel=name,
        median=quantiles(measures.median_intensity[:, index]),
        bright=quantiles(measures.bright_intensity[:, index]),
        lacking=sum(name in entry.missing for entry in manifest.volumes),
    )
