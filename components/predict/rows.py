"""A row of the table of predictions."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class VolumePrediction(BaseModel):
    """What was predicted for a volume; a refused one has a reason and no numbers.

    Attributes:
        tumour_pixels: Pixels at or above the threshold.
        tumour_slices: Slices with at least one such pixel.
        mean_probability: Over all voxels.
        max_probability: Over all voxels.
    """

    model_config = ConfigDict(frozen=True)

    volume: str
    slices: int | None = None
    tumour_pixels: int | None = None
    tumour_slices: int | None = None
    mean_probability: float | None = None
    max_probability: float | None = None
    status: Literal["ok", "refused"] = "ok"
    reason: str = ""
