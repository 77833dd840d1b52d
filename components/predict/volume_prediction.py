"""Row of the table of predictions."""

from typing import Literal

from components.shared.config import Record


class VolumePrediction(Record):
    """Prediction of a volume; a refused volume has only a reason.

    Attributes:
        volume: Name of the volume.
        slices: Number of slices.
        tumour_pixels: Number of pixels predicted as tumour.
        tumour_slices: Number of slices with predicted tumour.
        mean_probability: Mean over all voxels.
        max_probability: Maximum over all voxels.
        status: `ok` or `refused`.
        reason: Reason of a refusal.
    """

    volume: str
    slices: int | None = None
    tumour_pixels: int | None = None
    tumour_slices: int | None = None
    mean_probability: float | None = None
    max_probability: float | None = None
    status: Literal["ok", "refused"] = "ok"
    reason: str = ""
