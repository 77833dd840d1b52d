"""Pool: join what the folds of a cross-validation say about patients unseen by their models."""

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
    """Joins the folds' scores into one table, report and set of figures, and ends the MLflow runs.

    Args:
        store: Where the voxels are: s3://bucket/prefix or a folder.
        dataset_id: Version of the data set.
        manifest: The data set's list of volumes.
        models: MLflow model folder of each fold; the metadata name its run.
        per_patient: CSV of each fold's scores of its test patients, as evaluate writes it.
        settings: YAML of `components.aggregate.settings.AggregateSettings`.
        report: One HTML page.
        table: CSV, one row a patient, with the fold.
        metrics: Numbers over all patients; the file holds them as JSON.

    Returns:
        The pipeline run's MLflow run.
    """
    from pathlib import Path

    from components.aggregate.settings import AggregateSettings
    from components.shared.config import parse_config
    from components.shared.dataset.manifest import read_manifest
    from components.shared.process import importing, step_process
    from components.shared.storage.outcome import leaving_failure
    from components.shared.storage.store import open_store

    with (
        step_process("aggregate") as process,
        leaving_failure(store, process.pipeline_run, "aggregate"),
    ):
        with importing():
            from components.aggregate.aggregation import PoolFiles, aggregate_folds
            from components.aggregate.folds import FoldFiles

        tables = {each.metadata["mlflow_run_id"]: Path(each.path) for each in per_patient}
        pooled = aggregate_folds(
            [
                FoldFiles(run_id, model=Path(each.path), per_patient=tables[run_id])
                for each in models
                for run_id in [each.metadata["mlflow_run_id"]]
            ],
            read_manifest(Path(manifest.path), dataset_id),
            parse_config(AggregateSettings, settings, "aggregate"),
            store=open_store(store),
            cache=process.cache,
            results=PoolFiles(
                report=Path(report.path), table=Path(table.path), metrics=Path(metrics.path)
            ),
        )
        for name, value in pooled.metrics.items():
            metrics.log_metric(name, value)
        return pooled.run_id
