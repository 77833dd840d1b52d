"""A row of the table of predictions."""

from typing import Literal

from components.shared.config import Record


class VolumePrediction(Record):
    """What was predicted for a volume; a refused one has a reason and no numbers.

    Attributes:
        tumour_pixels: Pixels at or above the threshold.
        tumour_slices: Slices with at least one such pixel.
        mean_probability: Over all voxels.
        max_probability: Over all voxels.
    """

    volume: str
    slices: int | None = None
    tumour_pixels: int | None = None
    tumour_slices: int | None = None
    mean_probability: float | None = None
    max_probability: float | None = None
    status: Literal["ok", "refused"] = "ok"
    reason: str = ""
