"""The checks that stop a run before a GPU is used."""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.profile.measures import Measures
from components.profile.settings import ProfileSettings
from components.shared.errors import UserError


class Check(BaseModel):
    """One property of the data set against its limit.

    Attributes:
        name: The property.
        value: What was found.
        bound: Whether the value must be `at least` or `at most` the limit.
        limit: The limit.
        setting: Which setting of the profile holds the limit.
        passed: Whether the value keeps it.
        advice: What to do if not.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    bound: Literal["at least", "at most"]
    limit: float
    setting: str
    passed: bool
    advice: str


def run_checks(measures: Measures, quarantined: int, settings: ProfileSettings) -> list[Check]:
    """Compares a data set with the limits.

    Args:
        measures: Of the accepted volumes.
        quarantined: Number of volumes that ingest refused.
        settings: The limits.
    """
    return list(_checks(measures, quarantined, settings))


def require_passed(checks: Iterable[Check], page: str) -> None:
    """Stops the run if a check failed.

    Args:
        checks: Of `run_checks`.
        page: Where the profile page is, for the message.

    Raises:
        UserError: If a check failed; every one is named with value, limit and advice.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        reasons = "; ".join(f"{tell_check(check)}: {check.advice}" for check in failed)
        raise UserError(
            f"profile: this data set is not fit for training. {reasons}. The page {page} shows more"
        )


def tell_check(check: Check) -> str:
    """A check in words: name, value and limit."""
    return f"{check.name}: {check.value:.4g}, must be {check.bound} {check.limit:.4g}"


def _checks(measures: Measures, quarantined: int, settings: ProfileSettings) -> Iterator[Check]:
    with_tumour = measures.patient[measures.tumour_pixels > 0]
    volumes = len(measures.volume)
    yield _check(
        "patients",
        len(np.unique(measures.patient)),
        "at least",
        settings,
        "min_patients",
        "add patients",
    )
    yield _check(
        "patients with tumour",
        len(np.unique(with_tumour)),
        "at least",
        settings,
        "min_tumour_patients",
        "add patients with tumour and look whether the masks are those of the images",
    )
    yield _check(
        "median slices per volume",
        float(np.median(measures.slices)),
        "at least",
        settings,
        "min_median_slices",
        "deliver whole volumes, one folder each",
    )
    yield _check(
        "share of tumour in all pixels",
        float(measures.tumour_pixels.sum() / measures.pixels.sum()),
        "at most",
        settings,
        "max_tumour_pixel_share",
        "look whether the masks are inverted",
    )
    yield _check(
        "share of volumes quarantined",
        quarantined / (volumes + quarantined),
        "at most",
        settings,
        "max_quarantined_share",
        "mend the volumes of the quarantine list and ingest again",
    )
    yield _check(
        "share of volumes that lack a sequence",
        float(measures.lacks_sequence.mean()),
        "at most",
        settings,
        "max_missing_sequence_share",
        "deliver pre-contrast, FLAIR and post-contrast",
    )


def _check(
    name: str,
    value: float,
    bound: Literal["at least", "at most"],
    settings: ProfileSettings,
    setting: str,
    advice: str,
) -> Check:
    limit = float(getattr(settings, setting))
    lower = bound == "at least"
    return Check(
        name=name,
        value=value,
        bound=bound,
        limit=limit,
        setting=setting,
        passed=value >= limit if lower else value <= limit,
        advice=f"{advice}, or {'lower' if lower else 'raise'} profile.{setting}",
    )
