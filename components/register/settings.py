"""Settings of the register step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class RegisterSettings(Config):
    """Limits for promoting a candidate; differences are of patient Dice, 0..1.

    Attributes:
        model_name: Name of the registered model.
        min_patient_dice: Smallest mean patient Dice over the test patients, with or without a
            champion to replace.
        margin: Margin of non-inferiority: the lower bound of the mean difference must lie above
            `-margin`.
        bound_confidence: Confidence of the one-sided bound.
        group_floor: Largest fall of a site or tumour-size third that is accepted. A larger fall
            rejects the candidate if it also exceeds two standard errors.
        min_group_patients: Smallest group that decides; smaller groups are only shown.
        compare_on: `test` compares on the test patients that are new to the champion.
            `all_unseen` adds the champion's test patients that are not in this data set, so
            that all patients count that neither model was trained on.
        device: Device of the models; `auto` uses a GPU if there is one.
    """

    model_name: str = Field("brainseg", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    min_patient_dice: float = Field(0.5, ge=0, le=1)
    margin: float = Field(0.03, ge=0, le=1)
    bound_confidence: float = Field(0.95, gt=0.5, lt=1)
    group_floor: float = Field(0.1, ge=0, le=1)
    min_group_patients: int = Field(3, ge=2)
    compare_on: Literal["test", "all_unseen"] = "test"
    device: Literal["auto", "cpu", "cuda"] = "auto"
