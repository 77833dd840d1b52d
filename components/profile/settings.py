"""Settings of the profile step: limits that stop a run before it uses a GPU."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from components.shared.config import Config


class ProfileSettings(Config):
    """Limits of a data set that is fit for training, and the number of pictures.

    A value outside the first six limits stops the run.

    Attributes:
        min_patients: Smallest number of patients.
        min_tumour_patients: Smallest number of patients with tumour; each part of a split needs
            one.
        min_median_slices: Smallest median number of slices per volume. Less means that single
            slices were delivered instead of volumes.
        max_tumour_pixel_fraction: Largest fraction of pixels with tumour. More means that masks are
            inverted or show the head.
        max_quarantined_fraction: Largest fraction of volumes that ingest refused.
        max_missing_sequence_fraction: Largest fraction of volumes without a sequence.
        max_drift: Kolmogorov-Smirnov distance (0 to 1) from which new patients count as
            different from those that the champion was trained with.
        on_drift: Reaction to drift: `stop` the run, or `warn` in log and page.
        montage_volumes: Number of volumes pictured in the page; only these are read.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        f"max_{name}_share": f"max_{name}_fraction"
        for name in ("tumour_pixel", "quarantined", "missing_sequence")
    }

    min_patients: int = Field(default=10, ge=3)
    min_tumour_patients: int = Field(default=3, ge=1)
    min_median_slices: float = Field(default=5, ge=1)
    max_tumour_pixel_fraction: float = Field(default=0.3, gt=0, le=1)
    max_quarantined_fraction: float = Field(default=0.2, ge=0, le=1)
    max_missing_sequence_fraction: float = Field(default=0.5, ge=0, le=1)
    max_drift: float = Field(default=0.25, ge=0, le=1)
    on_drift: Literal["warn", "stop"] = "warn"
    montage_volumes: int = Field(default=8, ge=0, le=40)
