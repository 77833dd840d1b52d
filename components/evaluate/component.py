"""Evaluate: score the exported segmenter on held-out patients."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def evaluate(
    store: str,
    dataset_id: str,
    split_id: str,
    mlflow_run_id: str,
    manifest: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    history: dsl.Input[dsl.Artifact],
    settings: str,
    report: dsl.Output[dsl.HTML],
    per_patient: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    label: str = "",
) -> None:
    """Scores the exported model on the test part, and shows its failures.

    Args:
        store: URI of the store with the voxels: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version.
        split_id: Id of the split.
        mlflow_run_id: MLflow run that also receives the results.
        manifest: List of volumes of the data set version.
        split: JSON with the volumes of each part.
        model: MLflow model folder with the exported segmenter.
        history: JSON with the history of the training run.
        settings: YAML of `components.evaluate.settings.EvaluateSettings`.
        report: HTML page.
        per_patient: CSV, one row per target and volume of the test part.
        metrics: Metrics over the test patients, also as JSON in the file.
        label: Name of the model in the pipeline run, e.g. `fold-1`; empty for a single model.
    """
    from pathlib import Path

    from components.evaluate.settings import EvaluateSettings
    from components.shared.config import parse_config
    from components.shared.dataset.parts import SplitDataset
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step

    with running_step("evaluate", store, label) as process:
        with importing():
            from components.evaluate.evaluation import evaluate_model

        found = evaluate_model(
            SplitDataset.open(
                store=store,
                cache=process.cache,
                dataset_id=dataset_id,
                split_id=split_id,
                manifest=manifest.path,
                split=split.path,
            ),
            parse_config(EvaluateSettings, settings, "evaluate"),
            model=Path(model.path),
            history=Path(history.path),
            mlflow_run_id=mlflow_run_id,
            report=Path(report.path),
            per_patient=Path(per_patient.path),
            metrics=Path(metrics.path),
        )
        for name, value in found.items():
            metrics.log_metric(name, value)
        per_patient.metadata["mlflow_run_id"] = mlflow_run_id  # identifies it in a list
