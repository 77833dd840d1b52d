"""Settings of the step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class RegisterSettings(Config):
    """When a candidate becomes champion; differences are of patient Dice, 0..1.

    Attributes:
        model_name: The registered model.
        margin: The interval of the mean difference must lie above minus this.
        group_floor: No site and no tumour-size third may fall by more than this.
        min_group_patients: Smaller groups do not decide; the reason says so. By default
            every group decides.
        confidence: Of the two-sided bootstrap interval.
        bootstrap_resamples: Of the paired bootstrap over patients.
        seed: Of the bootstrap.
        threshold: The champion's prediction is tumour from this probability on; as in
            evaluate.
        device: Where the champion runs.
    """

    model_name: str = Field("brainseg", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    margin: float = Field(0.03, ge=0, le=1)
    group_floor: float = Field(0.1, ge=0, le=1)
    min_group_patients: int = Field(1, ge=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    bootstrap_resamples: int = Field(2000, ge=100, le=100_000)
    seed: int = Field(0, ge=0)
    threshold: float = Field(0.5, gt=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
