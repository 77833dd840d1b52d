"""What the patients that came are like, beside those that the champion knows."""

import logging
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from components.profile.measures import Measures, Numbers, measure
from components.shared.config import Record
from components.shared.dataset.manifest import Manifest
from components.shared.dataset.volumes import CHANNELS
from components.shared.errors import UserError

logger = logging.getLogger(__name__)

_CHANCE = 0.01  # that any measure at all is called drifted where nothing is

Chosen = npt.NDArray[np.bool_]


class Shift(Record):
    """One measure of the new patients against that of the reference's.

    Attributes:
        measure: What is compared, a value a volume.
        before: Its mean in the reference: a share where the measure is yes or no.
        new: The same of the new patients.
        distance: Kolmogorov and Smirnov's: the greatest difference between the shares of volumes
            up to any one value, 0 to 1.
        chance: What this is seldom beyond by chance alone, with so many volumes.
        drifted: Whether the distance is beyond both this and the limit.
    """

    measure: str
    before: float
    new: float
    distance: float
    chance: float
    drifted: bool


class Drift(Record):
    """A data set version against a reference.

    Attributes:
        reference_id: The version that it is compared with.
        arrived: Patients who are not in the reference.
        left: Patients who are only in the reference.
        changed: Patients of both with other voxels or another mask.
        limit: From which distance on a measure has drifted.
        shifts: Every measure, the greatest distance first; none if nobody came.
    """

    reference_id: str
    arrived: int
    left: int
    changed: int
    limit: float
    shifts: tuple[Shift, ...]

    @property
    def drifted(self) -> tuple[Shift, ...]:
        """The measures that have drifted."""
        return tuple(shift for shift in self.shifts if shift.drifted)


def measure_drift(manifest: Manifest, reference: Manifest, limit: float) -> Drift:
    """Compares the patients who came with those of a reference.

    The whole sets are not compared: they share most of their patients, who would hide the few
    that came. With few of them only what is very different can be told from chance, and the
    rest is not called drifted.

    Args:
        manifest: The data set now.
        reference: The one that it is compared with, in retraining the champion's.
        limit: From which distance on a measure has drifted, 0 to 1.
    """
    now, before = measure(manifest), measure(reference)
    came = ~np.isin(now.patient, before.patient)
    shifts = list(_shifts(now, came, before, limit)) if came.any() else []
    return Drift(
        reference_id=reference.dataset_id,
        arrived=len(np.unique(now.patient[came])),
        left=len(np.setdiff1d(before.patient, now.patient)),
        changed=_changed(manifest, reference),
        limit=limit,
        shifts=tuple(sorted(shifts, key=lambda shift: -shift.distance)),
    )


def judge_drift(
    drift: Drift | None, on_drift: Literal["warn", "stop"], keep_page: Callable[[], str]
) -> None:
    """Tells of drift in the log, or stops the run.

    Args:
        drift: What was measured, if there was a reference.
        on_drift: As in `ProfileSettings`.
        keep_page: Stores the profile page and says where it is; called before the run stops.

    Raises:
        UserError: If a measure has drifted and `on_drift` is `stop`.
    """
    if drift is None or not drift.drifted:
        return
    found = "; ".join(map(tell_shift, drift.drifted))
    told = f"the new patients differ from those of data set {drift.reference_id}. {found}"
    if on_drift == "stop":
        raise UserError(
            f"profile: {told}: look at the new patients, or set profile.on_drift=warn or raise "
            f"profile.max_drift. {keep_page()}"
        )
    logger.warning("%s", told)


def tell_shift(shift: Shift) -> str:
    """A shift in words."""
    return f"{shift.measure}: {shift.before:.4g} before, {shift.new:.4g} in the new patients"


def distance(one: Numbers, other: Numbers) -> float:
    """The two-sample statistic of Kolmogorov and Smirnov; both samples hold at least one value.

    N. Smirnov, "Table for estimating the goodness of fit of empirical distributions", Annals of
    Mathematical Statistics 19, 1948.
    """
    values = np.concatenate([one, other])
    shares = [
        np.searchsorted(np.sort(sample), values, side="right") / len(sample)
        for sample in (one, other)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def chance_distance(one: int, other: int, probability: float) -> float:
    """What the distance of two samples of one population is beyond with a probability, at most.

    Smirnov's limit for large samples; with small ones, or values that repeat, it is beyond it
    more seldom.

    Args:
        one: Size of a sample.
        other: Size of the other.
        probability: Between 0 and 1.
    """
    return float(np.sqrt(-np.log(probability / 2) / 2 * (one + other) / (one * other)))


def _shifts(now: Measures, came: Chosen, before: Measures, limit: float) -> Iterator[Shift]:
    new, old = dict(_looked_at(now, before)), dict(_looked_at(before, now))
    for name, (values, known) in new.items():
        arrived, earlier = values[came & known], old[name][0][old[name][1]]
        if not len(arrived) or not len(earlier):
            continue
        found = distance(arrived, earlier)
        chance = chance_distance(len(arrived), len(earlier), _CHANCE / len(new))
        yield Shift(
            measure=name,
            before=float(earlier.mean()),
            new=float(arrived.mean()),
            distance=found,
            chance=chance,
            drifted=found > max(limit, chance),
        )


def _looked_at(measures: Measures, other: Measures) -> Iterator[tuple[str, tuple[Numbers, Chosen]]]:
    """The measures by name, each with the volumes that have it."""
    everyone, with_tumour = np.full(len(measures.volume), True), measures.tumour_pixels > 0
    yield "slices per volume", (measures.slices, everyone)
    yield "volumes with tumour, share", (with_tumour.astype(np.float64), everyone)
    yield "slices with tumour, share", (measures.tumour_share, with_tumour)
    yield "tumour size (side of a cube, pixels)", (np.cbrt(measures.tumour_pixels), with_tumour)
    yield "lack a sequence, share", (measures.lacks_sequence.astype(np.float64), everyone)
    for index, channel in enumerate(CHANNELS):
        yield f"{channel}: median", (measures.median_intensity[:, index], everyone)
        yield f"{channel}: 99th percentile", (measures.bright_intensity[:, index], everyone)
    for site in np.union1d(measures.site, other.site):
        yield f"from site {site}, share", ((measures.site == site).astype(np.float64), everyone)


def _changed(manifest: Manifest, reference: Manifest) -> int:
    before = {entry.patient: entry.digest for entry in reference.volumes}
    return sum(
        before.get(entry.patient, entry.digest) != entry.digest for entry in manifest.volumes
    )
