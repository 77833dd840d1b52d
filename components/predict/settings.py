"""Settings of the predict step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.scans import SizeLimits
from components.shared.scoring.robust import FARTHEST_SCORE


class QualitySettings(Config):
    """Limits beyond which a prediction is flagged, in the pipeline `inference`.

    Attributes:
        flip: Whether the mirror image of each volume is predicted, too, which doubles the time.
        max_entropy: Mean entropy of the predicted pixels in bits (flag `uncertain`).
        max_flip_disagreement: 1 - Dice of the two predictions (flag `unstable`).
        max_components: Number of connected parts (flag `scattered`).
        max_intensity_score: Robust z-score of the intensities among the training volumes (flag
            `intensity`).
    """

    flip: bool = True
    max_entropy: float = Field(0.5, ge=0, le=1)
    max_flip_disagreement: float = Field(0.3, ge=0, le=1)
    max_components: int = Field(5, ge=0)
    max_intensity_score: float = Field(FARTHEST_SCORE, gt=0)


class PredictSettings(Config):
    """Settings of a prediction.

    Attributes:
        model_name: Registered model that `champion` refers to.
        device: Device of the segmenter; `auto` uses a GPU if there is one.
        most_pictures: Largest number of volumes with a picture in the page.
        max_file_mib: Largest file; a volume with a larger one is refused.
        max_volume_mib: Largest unpacked volume; a larger one is refused.
        max_archive_gib: Largest unpacked size of a .zip; a larger archive is refused.
        probabilities: Whether `VOLUME_probability` files are written next to the masks; of several
            targets `VOLUME_probability_NAME` for each.
        shard_volumes: Volumes that one pod predicts, in the pipeline `inference`.
        quality: Limits of predictions in the pipeline `inference`.
        layout: Which file of the source is what; that of the training data, without labels.
    """

    model_name: str = "brainseg"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    most_pictures: int = Field(60, ge=0, le=1000)
    max_file_mib: float = Field(64.0, gt=0, le=2048)
    max_volume_mib: float = Field(400.0, gt=0, le=2048)
    max_archive_gib: float = Field(64.0, gt=0)
    probabilities: bool = False
    shard_volumes: int = Field(100, ge=1)
    quality: QualitySettings = Field(default_factory=QualitySettings)
    layout: LayoutSettings = Field(default_factory=LayoutSettings)

    @property
    def limits(self) -> SizeLimits:
        """The limits of a volume."""
        return SizeLimits(self.max_file_mib, self.max_volume_mib)
