"""Scores of patients from the scores of their scans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np

from components.shared.scoring.scores import (
    PATIENT_FIGURES,
    PatientScore,
    VolumeScore,
    calibration_curve,
)

Score = TypeVar("Score", bound=PatientScore)


def by_patient(scores: Sequence[Score]) -> list[Score]:
    """Averages the scans of each patient, so that every patient counts once.

    A patient with one scan keeps its score. For others, each figure is its mean over the scans
    for which it is defined, and the volume's name is the patient's. Slices and voxels are those
    of all scans.
    """
    return [scans[0] if len(scans) == 1 else _average(scans) for scans in scans_of(scores)]


def join_targets(parts: Sequence[Mapping[str, Sequence[Score]]]) -> dict[str, list[Score]]:
    """Joins the scores of several sets of volumes with the same targets, by target."""
    return {target: [score for part in parts for score in part[target]] for target in parts[0]}


def patient_means(scores: Sequence[Score], value: Callable[[Score], float]) -> list[float]:
    """Returns the mean of a value over the scans of each patient."""
    return [float(np.mean([value(scan) for scan in scans])) for scans in scans_of(scores)]


def scans_of(scores: Sequence[Score]) -> list[list[Score]]:
    """Groups scores by patient, in the order of their first scans."""
    scans: dict[str, list[Score]] = {}
    for score in scores:
        scans.setdefault(score.patient, []).append(score)
    return list(scans.values())


def _average(scans: Sequence[Score]) -> Score:
    values: dict[str, Any] = {
        name: _mean([getattr(scan, name) for scan in scans]) for name in PATIENT_FIGURES
    }
    if isinstance(scans[0], VolumeScore):
        values |= _joined(cast(Sequence[VolumeScore], scans))
    return replace(scans[0], volume=scans[0].patient, **values)


def _joined(scans: Sequence[VolumeScore]) -> dict[str, Any]:
    empty = [scan.empty for scan in scans if scan.empty]
    return {
        "slice_dice": sum((scan.slice_dice for scan in scans), ()),
        "slice_has_tumour": sum((scan.slice_has_tumour for scan in scans), ()),
        "reliability": calibration_curve(scans),
        "empty": _average(empty) if empty else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
