"""Settings of the step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class EvaluateSettings(Config):
    """How a segmenter is evaluated.

    Attributes:
        threshold: A pixel is predicted as tumour from this probability on.
        overlay_volumes: How many of the best, of the median and of the worst patients the
            report shows, and how many of each size third MLflow gets.
        device: Where the segmenter runs; `auto` takes a GPU where there is one.
    """

    threshold: float = Field(0.5, gt=0, lt=1)
    overlay_volumes: int = Field(2, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
