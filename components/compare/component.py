"""Compare: choose among trained models, or among recipes that were trained on every fold."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def compare(
    store: str,
    dataset_id: str,
    split_id: str,
    manifest: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Artifact],
    models: dsl.Input[list[dsl.Model]],
    histories: dsl.Input[list[dsl.Artifact]],
    settings: str,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    table: dsl.Output[dsl.Dataset],
) -> str:
    """Scores models on the validation part, reports their differences, and outputs the best one.

    The test part is not read: the next step evaluates only the chosen model on it.

    Args:
        store: URI of the store with the voxels: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version.
        split_id: Id of the split.
        manifest: List of volumes of the data set version.
        split: JSON with the volumes of each part.
        models: MLflow model folders; their metadata name the runs.
        histories: JSON of each training run's `TrainingHistory`; their metadata name the runs.
        settings: YAML of `components.compare.settings.CompareSettings`.
        model: Copy of the chosen model.
        history: Copy of its history.
        report: HTML page.
        table: CSV, one row per model.

    Returns:
        Id of the MLflow run that trained the chosen model.
    """
    from pathlib import Path

    from components.compare.settings import CompareSettings
    from components.shared.config import parse_config
    from components.shared.dataset.parts import SplitDataset
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step

    with running_step("compare", store) as process:
        with importing():
            from components.compare.candidates import Trained
            from components.compare.comparison import compare_models

        history_of = {each.metadata["mlflow_run_id"]: Path(each.path) for each in histories}
        run_id = compare_models(
            [
                Trained(run_id, folder=Path(each.path), history=history_of[run_id])
                for each in models
                for run_id in [each.metadata["mlflow_run_id"]]
            ],
            SplitDataset.open(
                store=store,
                cache=process.cache,
                dataset_id=dataset_id,
                split_id=split_id,
                manifest=manifest.path,
                split=split.path,
            ),
            parse_config(CompareSettings, settings, "compare"),
            model=Path(model.path),
            history=Path(history.path),
            report=Path(report.path),
            table=Path(table.path),
        )
        for artifact in (model, history):
            artifact.metadata["mlflow_run_id"] = run_id
        return run_id


@trainer_step
def compare_folds(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    models: dsl.Input[list[dsl.Model]],
    settings: str,
    report: dsl.Output[dsl.HTML],
    table: dsl.Output[dsl.Dataset],
) -> str:
    """Scores recipes out of fold and reports their differences.

    Args:
        store: URI of the store with the voxels: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version.
        manifest: List of volumes of the data set version.
        models: MLflow model folder of each recipe and fold; their metadata name the runs.
        settings: YAML of `components.compare.settings.CompareSettings`.
        report: HTML page.
        table: CSV, one row per recipe.

    Returns:
        Label of the best recipe.
    """
    from pathlib import Path

    from components.compare.settings import CompareSettings
    from components.shared.config import parse_config
    from components.shared.dataset.manifest import read_manifest
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("compare", store) as process:
        with importing():
            from components.compare.candidates import Trained
            from components.compare.folds import compare_over_folds

        return compare_over_folds(
            [Trained(each.metadata["mlflow_run_id"], folder=Path(each.path)) for each in models],
            read_manifest(Path(manifest.path), dataset_id),
            parse_config(CompareSettings, settings, "compare"),
            store=open_store(store),
            cache=process.cache,
            report=Path(report.path),
            table=Path(table.path),
        )
