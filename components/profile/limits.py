"""Data set limits that stop a run before it uses a GPU."""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from components.profile.measures import Measures
from components.profile.settings import ProfileSettings
from components.shared.config import Record
from components.shared.errors import UserError

Measured = Callable[[Measures, int], float]  # the second is the number of quarantined volumes


class Limit(Record):
    """A property of the data set compared with its limit.

    Attributes:
        name: Name of the property.
        limit: Smallest or largest value allowed.
        setting: Profile setting that holds the limit.
        kept: True if the value is within the limit.
        advice: Remedy for a value outside.
    """

    name: str
    value: float
    bound: Literal["at least", "at most"]
    limit: float
    setting: str
    kept: bool
    advice: str

    def describe(self) -> str:
        """Returns the property with value and limit."""
        return f"{self.name}: {self.value:.4g}, must be {self.bound} {self.limit:.4g}"


# setting, property, its value, advice; the prefix `min_` marks a lower bound
_LIMITS: tuple[tuple[str, str, Measured, str], ...] = (
    ("min_patients", "patients", lambda found, _: len(np.unique(found.patient)), "add patients"),
    (
        "min_tumour_patients",
        "patients with tumour",
        lambda found, _: len(np.unique(found.patient[found.tumour_pixels > 0])),
        "add patients with tumour, and check that the masks belong to the images",
    ),
    (
        "min_median_slices",
        "median slices per volume",
        lambda found, _: float(np.median(found.slices)),
        "deliver whole volumes, one folder each",
    ),
    (
        "max_tumour_pixel_fraction",
        "fraction of pixels with tumour",
        lambda found, _: float(found.tumour_pixels.sum() / found.pixels.sum()),
        "check whether the masks are inverted",
    ),
    (
        "max_quarantined_fraction",
        "fraction of volumes in quarantine",
        lambda found, quarantined: quarantined / (len(found.volume) + quarantined),
        "fix the volumes of the quarantine list and ingest again",
    ),
    (
        "max_missing_sequence_fraction",
        "fraction of volumes without a sequence",
        lambda found, _: float(found.lacks_sequence.mean()),
        "deliver {channels}",
    ),
)


def check_limits(measures: Measures, quarantined: int, settings: ProfileSettings) -> list[Limit]:
    """Compares a data set, of which ingest refused `quarantined` volumes, with the limits."""
    *others, last = measures.channels.names
    listed = " and ".join([", ".join(others), last] if others else [last])
    return [
        _limit(
            name, measured(measures, quarantined), setting, settings, advice.format(channels=listed)
        )
        for setting, name, measured, advice in _LIMITS
    ]


def require_kept(limits: Iterable[Limit], keep_page: Callable[[], str]) -> None:
    """Stops the run if a value is outside its limit.

    Args:
        limits: Result of `check_limits`.
        keep_page: Stores the profile page and returns a sentence with its address.

    Raises:
        UserError: If a value is outside its limit; all such values are named with advice.
    """
    exceeded = [limit for limit in limits if not limit.kept]
    if exceeded:
        reasons = "; ".join(f"{limit.describe()}: {limit.advice}" for limit in exceeded)
        raise UserError(f"profile: this data set is not fit for training. {reasons}. {keep_page()}")


def _limit(name: str, value: float, setting: str, settings: ProfileSettings, advice: str) -> Limit:
    limit, lower = float(getattr(settings, setting)), setting.startswith("min_")
    return Limit(
        name=name,
        value=value,
        bound="at least" if lower else "at most",
        limit=limit,
        setting=setting,
        kept=value >= limit if lower else value <= limit,
        advice=f"{advice}, or {'lower' if lower else 'raise'} profile.{setting}",
    )
