"""The folds of a cross-validation: whose scores, by which model, on which split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from components.shared.dataset.manifest import Manifest
from components.shared.dataset.split import Split, check_split, fetch_split
from components.shared.errors import UserError
from components.shared.scoring.metrics import THRESHOLD
from components.shared.scoring.scores import PatientScore
from components.shared.scoring.table import read_patient_scores
from components.shared.storage.store import Store


@dataclass(frozen=True)
class FoldFiles:
    """What the steps of one fold left.

    Attributes:
        run_id: MLflow run of its training.
        model: MLflow model folder.
        per_patient: CSV of the scores of its test patients.
    """

    run_id: str
    model: Path
    per_patient: Path


@dataclass(frozen=True)
class Fold:
    """One fold: the patients of the split's test part, predicted by a model that never saw them.

    Attributes:
        label: E.g. `fold-1`.
        run_id: MLflow run of its training.
        model: MLflow model folder.
        split: What was trained on, chosen on and tested on.
        threshold: From which probability on a pixel was tumour.
        scores: One a test patient.
    """

    label: str
    run_id: str
    model: Path
    split: Split
    threshold: float
    scores: tuple[PatientScore, ...]


def read_folds(
    files: Sequence[FoldFiles], manifest: Manifest, store: Store, client: MlflowClient
) -> list[Fold]:
    """Reads the folds and makes sure that they are out-of-fold results of the whole data set.

    Args:
        files: What each fold left, in any order.
        manifest: The data set.
        store: Has the splits.
        client: Of the tracking server: the runs say which fold and split they are of.

    Returns:
        The folds in the order of their numbers.

    Raises:
        UserError: If a fold's scores are not those of its split's test part, or a patient of the
            data set was tested by no fold or by two.
    """
    folds = [_read(each, manifest, store, client) for each in files]
    tested = Counter(score.volume for fold in folds for score in fold.scores)
    wrong = [name for name in manifest.by_name() if tested[name] != 1]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(manifest.volumes)} patients are tested by no fold or by two, "
            f"e.g. {wrong[0]}; give every fold of one cross-validation of this data set once"
        )
    return sorted(folds, key=lambda fold: (len(fold.label), fold.label))  # fold-10 behind fold-9


def _read(files: FoldFiles, manifest: Manifest, store: Store, client: MlflowClient) -> Fold:
    data = client.get_run(files.run_id).data
    split = fetch_split(store, data.tags["split_id"])
    check_split(split, manifest)
    scores = read_patient_scores(files.per_patient)
    label = data.tags.get("label", files.run_id)
    if sorted(score.volume for score in scores) != list(split.part("test")):
        raise UserError(f"{label}: the scores are not those of the test part of its split")
    return Fold(
        label=label,
        run_id=files.run_id,
        model=files.model,
        split=split,
        threshold=data.metrics[THRESHOLD],
        scores=tuple(scores),
    )
