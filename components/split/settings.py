"""Settings of the steps split and fold."""

from typing import Literal

from pydantic import Field, model_validator

from components.shared.config import Config


class SplitSettings(Config):
    """Settings of the division of patients.

    Attributes:
        method: `stratified` divides by site and tumour volume; `report2020` uses the held-out
            volumes of the 2020 report as test part.
        seed: Seed of the order of patients; equal seeds and data give equal splits.
        validation_fraction: Fraction of the patients for validation; with `report2020` the
            fraction of the patients outside the test part.
        test_fraction: Fraction of the patients for the test; ignored by `report2020`.
        previous: Id of a split in the store whose patients keep their part, so that only new
            patients are assigned; empty if all patients are new.
    """

    method: Literal["stratified", "report2020"] = "stratified"
    seed: int = 0
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    previous: str = ""

    def following(self, split_id: str) -> "SplitSettings":
        """Returns settings that follow a split, unless they name one already.

        `report2020` follows no split, because its test part is always the same.
        """
        if self.previous or self.method == "report2020":
            return self
        return self.model_copy(update={"previous": split_id})

    @model_validator(mode="after")
    def _agree(self) -> "SplitSettings":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing for training")
        if self.method == "report2020" and self.previous:
            raise ValueError("report2020 fixes the test part: it cannot follow a previous split")
        return self


class FoldSettings(Config):
    """Settings of the folds of a cross-validation.

    Attributes:
        folds: Number of folds; each is the test part of one split.
        seed: Seed of the order of patients; equal seeds and data give equal folds.
        validation_fraction: Fraction of all patients for the validation part of each split.
    """

    folds: int = Field(default=5, ge=2)
    seed: int = 0
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
