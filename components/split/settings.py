"""Settings of the split and of the folds."""

from typing import Literal

from pydantic import Field, model_validator

from components.shared.config import Config


class SplitSettings(Config):
    """How patients are divided.

    Attributes:
        method: `stratified` by site and tumour volume; `report2020` takes exactly the
            volumes that the 2020 report held out as the test part.
        seed: Another seed, another split; the same seed and data, the same split.
        validation_fraction: Share of the patients for validation. With `report2020`: of
            those who are not for the test.
        test_fraction: Share of the patients for the test; `report2020` ignores it.
        previous: Id of a split in the store whose patients keep their part for ever, so
            that only new ones are assigned. Empty: all are new.
    """

    method: Literal["stratified", "report2020"] = "stratified"
    seed: int = 0
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    previous: str = ""

    def following(self, split_id: str) -> "SplitSettings":
        """The same settings with a split to follow, unless they name one.

        `report2020` follows none: its test part stays the same by itself.
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
    """How patients are dealt to the folds of a cross-validation.

    Attributes:
        folds: How many; each is the test part of one split.
        seed: Another seed, other folds; the same seed and data, the same folds.
        validation_fraction: Share of the patients who, of those outside a fold, validate its
            training.
    """

    folds: int = Field(default=5, ge=2)
    seed: int = 0
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
