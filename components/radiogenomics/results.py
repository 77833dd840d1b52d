"""Shapes of all masks, their agreement, and their association with genomic clusters."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.radiogenomics.agreement import Agreement, measure_agreement
from components.radiogenomics.association import Association, Value, find_associations
from components.radiogenomics.shape import FEATURES
from components.shared.config import Record
from components.shared.dataset.manifest import Manifest
from components.shared.errors import UserError

Masks = Literal["expert", "predicted"]

GROUPS: Mapping[str, str] = {
    "expert_all": "expert, all patients",
    "expert_unseen": "expert, unseen patients",
    "predicted_unseen": "predicted, unseen patients",
}


class Measured(Record):
    """Shape of one mask.

    Attributes:
        masks: Origin of the mask.
        is_unseen: Whether the model has seen neither patient nor image; `False` without a model.
        features: Value of each feature; `None` where it is undefined.
    """

    volume: str
    patient: str
    masks: Masks
    is_unseen: bool
    features: dict[str, float | None]


@dataclass(frozen=True)
class Analysis:
    """Results of the step.

    Attributes:
        measured: Shapes of the expert masks, and of the predicted masks of unseen patients.
        associations: By group of masks, see `GROUPS`; only the first without a model.
        agreement: Agreement of both masks of unseen patients by feature; empty without a model.
    """

    measured: Sequence[Measured]
    associations: Mapping[str, Sequence[Association]]
    agreement: Mapping[str, Agreement]

    @property
    def metrics(self) -> dict[str, float]:
        """ICC with interval, and p before correction, where they are defined."""
        values = {
            f"icc_{feature}{suffix}": value
            for feature, one in self.agreement.items()
            for suffix, value in (("", one.icc), ("_low", one.low), ("_high", one.high))
        }
        values |= {
            f"p_{group}/{one.feature}/{one.subtype}": one.p
            for group, found in self.associations.items()
            for one in found
        }
        return {name: value for name, value in values.items() if value is not None}


def analyze(
    measured: Sequence[Measured], subtypes: Mapping[str, Mapping[str, Value]], *, has_model: bool
) -> Analysis:
    """Tests the shapes of all masks; several scans of a patient are averaged first.

    Args:
        measured: Shapes of all masks.
        subtypes: Clusters of patients by subtype.
        has_model: Whether masks were predicted, of unseen patients only.
    """
    unseen = [one for one in measured if one.is_unseen]
    expert, predicted = (_by_patient(unseen, masks) for masks in ("expert", "predicted"))
    groups = {"expert_all": _by_patient(measured, "expert")}
    if has_model:
        groups |= {"expert_unseen": expert, "predicted_unseen": predicted}
    agreement = {
        feature: measure_agreement(
            [
                (expert[feature][name], predicted[feature][name])
                for name in sorted(expert[feature].keys() & predicted[feature].keys())
            ]
        )
        for feature in FEATURES
    }
    return Analysis(
        measured=measured,
        associations={name: find_associations(found, subtypes) for name, found in groups.items()},
        agreement=agreement if has_model else {},
    )


def read_subtypes(manifest: Manifest, columns: Iterable[str]) -> Mapping[str, Mapping[str, Value]]:
    """Returns the clusters of the patients by column of the patient table.

    Raises:
        UserError: If the data set has none of the columns.
    """
    found = {
        column: {
            entry.patient: value
            for entry in manifest.volumes
            if (value := entry.attributes.get(column)) is not None
        }
        for column in columns
    }
    filled = {column: clusters for column, clusters in found.items() if clusters}
    if not filled:
        known = sorted({name for entry in manifest.volumes for name in entry.attributes})
        raise UserError(
            f"data set {manifest.dataset_id} has no value in {', '.join(found)}; set "
            f"radiogenomics.subtypes to columns of its patient table: {', '.join(known) or 'none'}"
        )
    return filled


def _by_patient(measured: Iterable[Measured], masks: str) -> Mapping[str, Mapping[str, float]]:
    """Means over the scans of each patient, by feature."""
    values: dict[str, defaultdict[str, list[float]]] = {
        feature: defaultdict(list) for feature in FEATURES
    }
    for one in measured:
        for feature, value in one.features.items():
            if one.masks == masks and value is not None:
                values[feature][one.patient].append(value)
    return {
        feature: {patient: float(np.mean(scans)) for patient, scans in found.items()}
        for feature, found in values.items()
    }
