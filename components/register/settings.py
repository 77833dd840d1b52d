"""Settings of the step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class RegisterSettings(Config):
    """When a candidate becomes champion; differences are of patient Dice, 0..1.

    Attributes:
        model_name: The registered model.
        min_patient_dice: The mean patient Dice over the test patients must reach this, with
            a champion to replace or without.
        margin: Of non-inferiority: the lower bound of the mean difference must lie above
            minus this.
        bound_confidence: Of that one-sided bound.
        group_floor: No site and no tumour-size third may fall by more than this and more than
            two standard errors.
        min_group_patients: Smaller groups are shown and do not decide.
        compare_on: `test` compares on the test patients that are new to the champion;
            `all_unseen` adds the champion's own test patients that are not in today's data
            set, so that every patient counts whom neither model has learned from.
        device: Where the models run.
    """

    model_name: str = Field("brainseg", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    min_patient_dice: float = Field(0.5, ge=0, le=1)
    margin: float = Field(0.03, ge=0, le=1)
    bound_confidence: float = Field(0.95, gt=0.5, lt=1)
    group_floor: float = Field(0.1, ge=0, le=1)
    min_group_patients: int = Field(3, ge=2)
    compare_on: Literal["test", "all_unseen"] = "test"
    device: Literal["auto", "cpu", "cuda"] = "auto"
