"""Compared models with their scores, times and sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from components.compare.settings import CompareSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import Part
from components.shared.dataset.volumes import Voxels
from components.shared.model.segmenter import load_segmenter
from components.shared.report.overlay import draw_slice, largest_tumour_slice
from components.shared.scoring.patients import by_patient
from components.shared.scoring.predicted import by_target, scored
from components.shared.scoring.scores import PatientScore, VolumeScore


@dataclass(frozen=True)
class Trained:
    """Artifacts of a training run.

    Attributes:
        run_id: Id of the MLflow run.
        folder: MLflow model folder.
        history: JSON of the `TrainingHistory`; `None` if nothing is copied.
    """

    run_id: str
    folder: Path
    history: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A model's results on the validation patients.

    Attributes:
        label: Name of the recipe.
        trained: Artifacts of the training run.
        targets: Scores by target, the first target first; one per volume of the comparison.
        parameters: Number of weights of the network.
        train_minutes: Minutes from the start of the MLflow run to its last validated epoch.
        predict_seconds: Seconds per volume, median over the patients.
        overlays: Drawn slice of each shown patient, by volume.
    """

    label: str
    trained: Trained
    targets: Mapping[str, Sequence[PatientScore]]
    parameters: int
    train_minutes: float
    predict_seconds: float
    overlays: Mapping[str, Voxels]

    @property
    def scores(self) -> Sequence[PatientScore]:
        """Scores of the first target, by which models are compared."""
        return next(iter(self.targets.values()))

    @property
    def patients(self) -> list[PatientScore]:
        """The scores, averaged over the scans of each patient."""
        return by_patient(self.scores)

    @property
    def dice(self) -> float:
        """Mean patient Dice."""
        return _mean_dice(self.scores)

    @property
    def further_dice(self) -> dict[str, float]:
        """Mean patient Dice of each target but the first."""
        return {name: _mean_dice(self.targets[name]) for name in list(self.targets)[1:]}


def measure(
    trained: Trained,
    dataset: SplitDataset,
    settings: CompareSettings,
    client: MlflowClient,
    shown: Sequence[str],
    part: Part = "validation",
) -> Candidate:
    """Predicts and scores one part of the split, and no other, with a model.

    Args:
        trained: Artifacts of the model's training run.
        dataset: Data set with its split.
        settings: Settings of the step.
        client: Client of the tracking server.
        shown: Volumes to draw.
        part: Part of the split; the model was trained without it.

    Raises:
        UserError: If the model or a volume cannot be used.
    """
    label = client.get_run(trained.run_id).data.tags.get("label") or trained.run_id
    segmenter = load_segmenter(trained.folder, settings.device)
    scores: list[tuple[VolumeScore, ...]] = []
    seconds, overlays = [], {}
    entries, what = dataset.entries(part), f"{part} volumes by {label}"
    for one in scored(segmenter, dataset, entries, settings.threshold, what):
        scores.append(one.scores)
        seconds.append(one.seconds)
        if one.entry.volume in shown:
            index = largest_tumour_slice(one.volume.truth[0])
            overlays[one.entry.volume] = draw_slice(one.volume, one.masks, index)
    return Candidate(
        label=label,
        trained=trained,
        targets=by_target(dataset.manifest.targets, scores),
        parameters=segmenter.parameters,
        train_minutes=_train_minutes(client, trained.run_id),
        predict_seconds=float(np.median(seconds)),
        overlays=overlays,
    )


def _mean_dice(scores: Sequence[PatientScore]) -> float:
    return float(np.mean([score.dice for score in by_patient(scores)]))


def _train_minutes(client: MlflowClient, run_id: str) -> float:
    """Uses the server's times, because a process does not know the attempts before it."""
    points = [
        point
        for network in ("", "flair_")  # the second one is trained after the first
        for point in client.get_metric_history(run_id, f"{network}validation_dice")
    ]
    last = max(point.timestamp for point in points)
    return float((last - client.get_run(run_id).info.start_time) / 60_000)
