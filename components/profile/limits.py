"""The limits that stop a run before a GPU is used."""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from components.profile.measures import Measures
from components.profile.settings import ProfileSettings
from components.shared.config import Record
from components.shared.errors import UserError

Measured = Callable[[Measures, int], float]  # the second is the number of quarantined volumes


class Limit(Record):
    """One property of the data set against its limit.

    Attributes:
        name: The property.
        value: What was found.
        bound: Whether the value must be `at least` or `at most` the limit.
        limit: The limit.
        setting: Which setting of the profile holds the limit.
        kept: Whether the value keeps it.
        advice: What to do if not.
    """

    name: str
    value: float
    bound: Literal["at least", "at most"]
    limit: float
    setting: str
    kept: bool
    advice: str


def _patients(measures: Measures, _: int) -> float:
    return len(np.unique(measures.patient))


def _tumour_patients(measures: Measures, _: int) -> float:
    return len(np.unique(measures.patient[measures.tumour_pixels > 0]))


def _median_slices(measures: Measures, _: int) -> float:
    return float(np.median(measures.slices))


def _tumour_share(measures: Measures, _: int) -> float:
    return float(measures.tumour_pixels.sum() / measures.pixels.sum())


def _quarantined_share(measures: Measures, quarantined: int) -> float:
    return quarantined / (len(measures.volume) + quarantined)


def _lacking_share(measures: Measures, _: int) -> float:
    return float(measures.lacks_sequence.mean())


# setting, property, its value, advice; a setting called min_ is a lower bound
_LIMITS: tuple[tuple[str, str, Measured, str], ...] = (
    ("min_patients", "patients", _patients, "add patients"),
    (
        "min_tumour_patients",
        "patients with tumour",
        _tumour_patients,
        "add patients with tumour and look whether the masks are those of the images",
    ),
    (
        "min_median_slices",
        "median slices per volume",
        _median_slices,
        "deliver whole volumes, one folder each",
    ),
    (
        "max_tumour_pixel_share",
        "share of tumour in all pixels",
        _tumour_share,
        "look whether the masks are inverted",
    ),
    (
        "max_quarantined_share",
        "share of volumes quarantined",
        _quarantined_share,
        "mend the volumes of the quarantine list and ingest again",
    ),
    (
        "max_missing_sequence_share",
        "share of volumes that lack a sequence",
        _lacking_share,
        "deliver pre-contrast, FLAIR and post-contrast",
    ),
)


def check_limits(measures: Measures, quarantined: int, settings: ProfileSettings) -> list[Limit]:
    """Compares a data set with the limits.

    Args:
        measures: Of the accepted volumes.
        quarantined: Number of volumes that ingest refused.
        settings: The limits.
    """
    return [
        _limit(name, measured(measures, quarantined), setting, settings, advice)
        for setting, name, measured, advice in _LIMITS
    ]


def require_kept(limits: Iterable[Limit], keep_page: Callable[[], str]) -> None:
    """Stops the run if a limit is not kept.

    Args:
        limits: Of `check_limits`.
        keep_page: Stores the profile page and says where it is; called before the run stops.

    Raises:
        UserError: If a limit is not kept; every one is named with value and advice.
    """
    exceeded = [limit for limit in limits if not limit.kept]
    if exceeded:
        reasons = "; ".join(f"{tell_limit(limit)}: {limit.advice}" for limit in exceeded)
        raise UserError(f"profile: this data set is not fit for training. {reasons}. {keep_page()}")


def tell_limit(limit: Limit) -> str:
    """A limit in words: name, value and bound."""
    return f"{limit.name}: {limit.value:.4g}, must be {limit.bound} {limit.limit:.4g}"


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
