"""Folds of a cross-validation: scores, model and split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from components.shared.dataset.manifest import Manifest
from components.shared.dataset.split import Split, check_split, fetch_split
from components.shared.errors import UserError
from components.shared.scoring.metrics import THRESHOLD
from components.shared.scoring.patients import join_targets
from components.shared.scoring.scores import PatientScore
from components.shared.scoring.table import read_target_scores
from components.shared.storage.store import Store


@dataclass(frozen=True)
class FoldFiles:
    """Artifacts of one fold.

    Attributes:
        run_id: MLflow run of the fold's training run.
        model: MLflow model folder.
        per_patient: CSV with the scores of the fold's test patients.
    """

    run_id: str
    model: Path
    per_patient: Path


@dataclass(frozen=True)
class Fold:
    """One fold: the patients of the split's test part, predicted by a model that never saw them.

    Attributes:
        label: Name of the fold, e.g. `fold-1`.
        files: Artifacts of the fold.
        split: Split of the fold.
        threshold: Probability from which a pixel counts as tumour.
        targets: Scores by target, the first target first; one per volume of the test part.
    """

    label: str
    files: FoldFiles
    split: Split
    threshold: float
    targets: Mapping[str, Sequence[PatientScore]]

    @property
    def scores(self) -> Sequence[PatientScore]:
        """Scores of the first target."""
        return next(iter(self.targets.values()))


def read_folds(
    files: Sequence[FoldFiles], manifest: Manifest, store: Store, client: MlflowClient
) -> list[Fold]:
    """Reads folds and checks that they are out-of-fold results of the whole data set.

    Args:
        files: Artifacts of each fold, in any order.
        manifest: Manifest of the data set.
        store: Store with the splits.
        client: Client of the tracking server; tags of the runs name fold and split.

    Returns:
        The folds in the order of their numbers.

    Raises:
        UserError: If a fold's scores do not match its split's test part, or a patient of the
            data set is not tested by exactly one fold.
    """
    folds = [_read(each, manifest, store, client) for each in files]
    tested = Counter(score.volume for fold in folds for score in fold.scores)
    wrong = [name for name in manifest.by_name() if tested[name] != 1]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(manifest.volumes)} patients are not tested by exactly one fold, "
            f"e.g. {wrong[0]}; pass each fold of one cross-validation of this data set once"
        )
    return sorted(folds, key=lambda fold: (len(fold.label), fold.label))  # fold-10 after fold-9


def joined(folds: Sequence[Fold]) -> dict[str, list[PatientScore]]:
    """Scores of all folds by target, the first target first."""
    return join_targets([fold.targets for fold in folds])


def _read(files: FoldFiles, manifest: Manifest, store: Store, client: MlflowClient) -> Fold:
    data = client.get_run(files.run_id).data
    split = fetch_split(store, data.tags["split_id"])
    check_split(split, manifest)
    scores = list(read_target_scores(files.per_patient).values())
    label, names = data.tags.get("label", files.run_id), [each.name for each in manifest.targets]
    volumes = [sorted(score.volume for score in some) for some in scores]
    if volumes != [list(split.part("test"))] * len(names):
        raise UserError(f"{label}: the scores do not match the test part of its split")
    return Fold(
        label=label,
        files=files,
        split=split,
        threshold=data.metrics[THRESHOLD],
        targets=dict(zip(names, scores, strict=True)),
    )
