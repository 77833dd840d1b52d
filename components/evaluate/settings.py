"""Settings of the evaluate step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class EvaluateSettings(Config):
    """Settings of the evaluation of a segmenter.

    Attributes:
        threshold: Probability from which a pixel is predicted as tumour.
        overlay_volumes: Number of best, median and worst patients that the report shows, and of
            patients of each size third with overlays in MLflow.
        device: Device of the segmenter; `auto` uses a GPU if there is one.
    """

    threshold: float = Field(0.5, gt=0, lt=1)
    overlay_volumes: int = Field(2, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
