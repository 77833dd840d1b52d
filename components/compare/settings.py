"""Settings of the step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class CompareSettings(Config):
    """How recipes are compared on the validation patients.

    Attributes:
        threshold: A pixel is predicted as tumour from this probability on.
        confidence: Of the two-sided intervals of mean differences.
        overlay_volumes: How many patients of each size third are drawn, each by every recipe.
        device: Where the models predict; `auto` takes a GPU where there is one.
    """

    threshold: float = Field(0.5, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    overlay_volumes: int = Field(1, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
