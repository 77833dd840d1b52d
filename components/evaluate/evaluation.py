"""Evaluate step: scores a model on the test part and reports the results."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient

from components.evaluate.page import render_evaluation
from components.evaluate.results import Evaluation, evaluate_test_part, ranked_volumes
from components.evaluate.settings import EvaluateSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.volumes import Volume, Voxels
from components.shared.model.segmenter import load_segmenter
from components.shared.report.overlay import draw_overlays, draw_slice, largest_tumour_slice
from components.shared.report.training_history import TrainingHistory
from components.shared.scoring.groups import first_of_each_third
from components.shared.scoring.metrics import HEADLINE, METRICS
from components.shared.scoring.table import write_patient_scores
from components.shared.tracking.runs import log_headline, log_metrics, log_params, recording


def evaluate_model(
    dataset: SplitDataset,
    settings: EvaluateSettings,
    *,
    model: Path,
    history: Path,
    mlflow_run_id: str,
    report: Path,
    per_patient: Path,
    metrics: Path,
) -> Mapping[str, float]:
    """Evaluates an exported model on the test part.

    The component describes the files: `model` and `history` are read, the others written.

    Returns:
        Metrics over all test patients, and their threshold.

    Raises:
        UserError: If the model, the data or the MLflow server cannot be used.
    """
    with recording(mlflow_run_id) as client:
        segmenter = load_segmenter(model, settings.device)
        evaluation = evaluate_test_part(segmenter, dataset, settings)
        page = _render(evaluation, dataset, settings, history, mlflow_run_id)
        report.write_text(page, encoding="utf-8")
        write_patient_scores(evaluation.targets, per_patient)
        metrics.write_text(json.dumps(evaluation.metrics, indent=2, allow_nan=False))
        _log(client, mlflow_run_id, evaluation, settings)
        # as text under their proper names: KFP names a file by its artifact, without an extension
        client.log_text(mlflow_run_id, page, "evaluation/report.html")
        table = per_patient.read_text("utf-8")
        client.log_text(mlflow_run_id, table, "evaluation/per_patient.csv")
        for name, pixels in _recurring_overlays(evaluation, dataset, settings):
            client.log_image(mlflow_run_id, pixels, f"overlays/{name}.png")
    return evaluation.metrics


def _render(
    evaluation: Evaluation,
    dataset: SplitDataset,
    settings: EvaluateSettings,
    history: Path,
    mlflow_run_id: str,
) -> str:
    overlays = {
        (rank, name): draw_overlays(_volume(dataset, name), evaluation.predictions[name].unpack())
        for rank, names in ranked_volumes(evaluation.scores, settings.overlay_volumes).items()
        for name in names
    }
    origin = (
        f"data set {dataset.manifest.dataset_id}, split {dataset.split.split_id}, "
        f"MLflow run {mlflow_run_id}"
    )
    epochs = TrainingHistory.model_validate_json(history.read_bytes())
    return render_evaluation(evaluation, overlays, epochs, origin, settings)


def _log(
    client: MlflowClient, run_id: str, evaluation: Evaluation, settings: EvaluateSettings
) -> None:
    log_params(client, run_id, {"evaluate": settings.model_dump(mode="json")})
    grouped = {
        f"{name}/{metric.name}": found[metric.name]
        for name, found in evaluation.groups.items()
        for metric in METRICS
        if metric.by_group and metric.name in found
    }
    log_metrics(client, run_id, {**evaluation.metrics, **grouped})
    log_headline(client, run_id, HEADLINE)
    client.log_dict(run_id, dict(evaluation.groups), "evaluation/groups.json")


def _recurring_overlays(
    evaluation: Evaluation, dataset: SplitDataset, settings: EvaluateSettings
) -> Iterator[tuple[str, Voxels]]:
    for name in sorted(first_of_each_third(evaluation.scores, settings.overlay_volumes)):
        volume = _volume(dataset, name)
        index = largest_tumour_slice(volume.truth[0])
        yield name, draw_slice(volume, evaluation.predictions[name].unpack(), index)


def _volume(dataset: SplitDataset, name: str) -> Volume:
    return dataset.volume(dataset.manifest.by_name()[name])
