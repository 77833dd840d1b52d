"""Drift of new patients against the data set that the champion was trained with."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from components.profile.measures import (
    SLICE_SPACING,
    Choice,
    Measures,
    Names,
    Numbers,
    measure,
)
from components.shared.config import Record
from components.shared.dataset.manifest import Manifest
from components.shared.errors import UserError

logger = logging.getLogger(__name__)

_CHANCE = 0.01  # probability that any measure counts as drifted although none has


class Shift(Record):
    """One measure of the new patients compared with the reference's patients.

    Attributes:
        before: Mean in the reference; a fraction if the measure is yes or no.
        new: Mean over the new patients.
        distance: Kolmogorov-Smirnov statistic: the largest difference between the two empirical
            distribution functions, 0 to 1.
        chance: Distance that chance alone seldom exceeds with this many volumes.
        drifted: True if the distance exceeds both `chance` and the limit.
    """

    measure: str
    before: float
    new: float
    distance: float
    chance: float
    drifted: bool

    def describe(self) -> str:
        """Returns the measure with both means."""
        return f"{self.measure}: {self.before:.4g} before, {self.new:.4g} in the new patients"


class Drift(Record):
    """A data set version compared with a reference.

    Attributes:
        arrived: Number of patients who are not in the reference.
        left: Number of patients who are only in the reference.
        changed: Number of patients of both with different voxels or a different mask.
        limit: Distance from which a measure counts as drifted.
        shifts: All measures, the largest distance first; empty without new patients.
        channels_not_compared: Channels that only one data set has, or all if only one data set has
            uint8 images.
    """

    reference_id: str
    arrived: int
    left: int
    changed: int
    limit: float
    shifts: tuple[Shift, ...]
    channels_not_compared: tuple[str, ...] = ()

    @property
    def drifted(self) -> tuple[Shift, ...]:
        """The measures that have drifted."""
        return tuple(shift for shift in self.shifts if shift.drifted)


def measure_drift(manifest: Manifest, reference: Manifest, limit: float) -> Drift:
    """Compares new patients with all patients of a reference.

    The full data sets are not compared: most of their patients are the same and would hide the
    new ones. With few new patients only large differences can be distinguished from chance.

    Args:
        manifest: Data set with new patients.
        reference: Data set to compare with, in retraining the champion's.
        limit: Distance from which a measure counts as drifted, 0 to 1.
    """
    now, before = measure(manifest), measure(reference)
    is_new = ~np.isin(now.patient, before.patient)
    channels = _common_channels(now, before)
    shifts = list(_shifts(now, is_new, before, channels, limit)) if is_new.any() else []
    named = dict.fromkeys([*before.channels.names, *now.channels.names])
    return Drift(
        reference_id=reference.dataset_id,
        arrived=len(np.unique(now.patient[is_new])),
        left=len(np.setdiff1d(before.patient, now.patient)),
        changed=_changed(manifest, reference),
        limit=limit,
        shifts=tuple(sorted(shifts, key=lambda shift: -shift.distance)),
        channels_not_compared=tuple(name for name in named if name not in channels),
    )


def judge_drift(
    drift: Drift | None, on_drift: Literal["warn", "stop"], keep_page: Callable[[], str]
) -> None:
    """Logs drift as a warning, or stops the run after `keep_page`, see `require_kept`.

    Raises:
        UserError: If a measure has drifted and `on_drift` is `stop`.
    """
    if drift is None or not drift.drifted:
        return
    found = "; ".join(shift.describe() for shift in drift.drifted)
    message = f"the new patients differ from those of data set {drift.reference_id}. {found}"
    if on_drift == "stop":
        raise UserError(
            f"profile: {message}: check the new patients, set profile.on_drift=warn, or raise "
            f"profile.max_drift. {keep_page()}"
        )
    logger.warning("%s", message)


def distance(one: Numbers, other: Numbers) -> float:
    """Computes the two-sample Kolmogorov-Smirnov statistic of two non-empty samples.

    N. Smirnov, "Table for estimating the goodness of fit of empirical distributions", Annals of
    Mathematical Statistics 19, 1948.
    """
    values = np.concatenate([one, other])
    below = np.searchsorted(np.sort(one), values, side="right") / len(one)
    other_below = np.searchsorted(np.sort(other), values, side="right") / len(other)
    return float(np.abs(below - other_below).max())


def chance_distance(one: int, other: int, probability: float) -> float:
    """Computes the distance that two samples of one population exceed with a given probability.

    Smirnov's limit for large samples. Small samples and repeated values exceed it less often.

    Args:
        one: Size of one sample.
        other: Size of the other sample.
        probability: Probability, between 0 and 1.
    """
    return float(np.sqrt(-np.log(probability / 2) / 2 * (one + other) / (one * other)))


def _shifts(
    now: Measures, is_new: Choice, before: Measures, channels: Sequence[str], limit: float
) -> Iterator[Shift]:
    sites, in_mm = np.union1d(now.site, before.site), now.in_mm and before.in_mm
    both = [_compared(measures, sites, channels, in_mm) for measures in (now, before)]
    compared = list(zip(*both, strict=True))
    for (name, values, known), (_, earlier, earlier_known) in compared:
        arrived, earlier = values[is_new & known], earlier[earlier_known]
        if not len(arrived) or not len(earlier):
            continue
        found = distance(arrived, earlier)
        chance = chance_distance(len(arrived), len(earlier), _CHANCE / len(compared))
        yield Shift(
            measure=name,
            before=float(earlier.mean()),
            new=float(arrived.mean()),
            distance=found,
            chance=chance,
            drifted=found > max(limit, chance),
        )


def _common_channels(now: Measures, before: Measures) -> list[str]:
    if now.channels.dtype != before.channels.dtype:
        return []  # gray levels as delivered and mapped ones
    return [name for name in now.channels.names if name in before.channels.names]


def _compared(
    measures: Measures, sites: Names, channels: Sequence[str], in_mm: bool
) -> Iterator[tuple[str, Numbers, Choice]]:
    """Yields measures with their names and the volumes that have them."""
    everyone, with_tumour = np.full(len(measures.volume), True), measures.tumour_pixels > 0
    yield "slices per volume", measures.slices, everyone
    yield "volumes with tumour, fraction", with_tumour.astype(np.float64), everyone
    yield "slices with tumour, fraction", measures.tumour_share, with_tumour
    yield *measures.tumour_size(in_mm), with_tumour
    if in_mm:
        yield SLICE_SPACING, measures.spacing_mm[:, 0], everyone
    yield "lack a sequence, fraction", measures.lacks_sequence.astype(np.float64), everyone
    for name, values in measures.intensities(channels):
        yield name, values, everyone
    for site in sites:
        yield f"from site {site}, fraction", (measures.site == site).astype(np.float64), everyone


def _changed(manifest: Manifest, reference: Manifest) -> int:
    now, before = _digests(manifest), _digests(reference)
    return sum(before.get(patient, digests) != digests for patient, digests in now.items())


def _digests(manifest: Manifest) -> dict[str, set[str]]:
    digests: dict[str, set[str]] = {}
    for entry in manifest.volumes:
        digests.setdefault(entry.patient, set()).add(entry.digest)
    return digests
