"""Aggregate: join the out-of-fold results of a cross-validation."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def aggregate(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    models: dsl.Input[list[dsl.Model]],
    per_patient: dsl.Input[list[dsl.Dataset]],
    settings: str,
    report: dsl.Output[dsl.HTML],
    table: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Joins the folds' scores into one table and report, and ends the MLflow runs.

    Args:
        store: URI of the store with the voxels: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version.
        manifest: List of volumes of the data set version.
        models: MLflow model folder of each fold; its metadata name the run.
        per_patient: CSV with the scores of each fold's test patients, as evaluate writes it.
        settings: YAML of `components.aggregate.settings.AggregateSettings`.
        report: HTML page.
        table: CSV, one row per volume, with the fold.
        metrics: Figures over all patients, also as JSON in the file.

    Returns:
        Id of the pipeline run's MLflow run.
    """
    from pathlib import Path

    from components.aggregate.settings import AggregateSettings
    from components.shared.config import parse_config
    from components.shared.dataset.manifest import read_manifest
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("aggregate", store) as process:
        with importing():
            from components.aggregate.aggregation import aggregate_folds
            from components.aggregate.folds import FoldFiles

        tables = {each.metadata["mlflow_run_id"]: Path(each.path) for each in per_patient}
        run_id, figures = aggregate_folds(
            [
                FoldFiles(run_id, model=Path(each.path), per_patient=tables[run_id])
                for each in models
                for run_id in [each.metadata["mlflow_run_id"]]
            ],
            read_manifest(Path(manifest.path), dataset_id),
            parse_config(AggregateSettings, settings, "aggregate"),
            store=open_store(store),
            cache=process.cache,
            report=Path(report.path),
            table=Path(table.path),
            metrics=Path(metrics.path),
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
        return run_id
