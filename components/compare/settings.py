"""Settings of the compare step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class CompareSettings(Config):
    """Settings of the comparison of recipes on validation patients.

    Attributes:
        threshold: Probability from which a pixel is predicted as tumour.
        confidence: Confidence of the two-sided intervals of mean differences, of all together.
        overlay_volumes: Number of patients of each size third drawn for every recipe.
        device: Device of the models; `auto` uses a GPU if there is one.
    """

    threshold: float = Field(0.5, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    overlay_volumes: int = Field(1, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
