"""Settings of the profile: the limits that stop a run before a GPU is used."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class ProfileSettings(Config):
    """Limits of a data set that is worth training on, and the size of the montage.

    Attributes:
        min_patients: Fewer patients stop the run.
        min_tumour_patients: So do fewer patients with tumour; each part of a split needs one.
        min_median_slices: So do volumes whose median number of slices is lower: single slices
            were delivered in place of volumes.
        max_tumour_pixel_share: So does a greater share of tumour in all pixels: masks are
            inverted or show the head.
        max_quarantined_share: So does a greater share of volumes that ingest refused.
        max_missing_sequence_share: So does a greater share of volumes that lack a sequence.
        max_drift: From which distance on (0 to 1, see `components.profile.drift`) the new patients
            differ from those that the champion knows.
        on_drift: Whether that stops the run or is only told.
        montage_volumes: How many volumes are pictured in the page; only these are read.
    """

    min_patients: int = Field(default=10, ge=3)
    min_tumour_patients: int = Field(default=3, ge=1)
    min_median_slices: float = Field(default=5, ge=1)
    max_tumour_pixel_share: float = Field(default=0.3, gt=0, le=1)
    max_quarantined_share: float = Field(default=0.2, ge=0, le=1)
    max_missing_sequence_share: float = Field(default=0.5, ge=0, le=1)
    max_drift: float = Field(default=0.25, ge=0, le=1)
    on_drift: Literal["warn", "stop"] = "warn"
    montage_volumes: int = Field(default=8, ge=0, le=40)
