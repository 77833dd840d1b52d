"""Compare: choose among trained models by the validation patients."""

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
    """Scores models on the validation part, says how they differ, and hands the best one on.

    The test part is not read: only the chosen model meets it, in the next step.

    Args:
        store: Where the voxels are: s3://bucket/prefix or a folder.
        dataset_id: Version of the data set.
        split_id: Version of the split.
        manifest: The data set's list of volumes.
        split: Which volume is in which part.
        models: MLflow model folders; the metadata name their runs.
        histories: JSON of each training's `TrainingHistory`, likewise.
        settings: YAML of `components.compare.settings.CompareSettings`.
        model: The chosen one, copied.
        history: Of its training, copied.
        report: One HTML page.
        table: CSV, one row a model.

    Returns:
        The MLflow run of the chosen model's training.
    """
    from pathlib import Path

    from components.compare.settings import CompareSettings
    from components.shared.config import parse_config
    from components.shared.dataset.parts import SplitDataset
    from components.shared.process import importing, step_process
    from components.shared.storage.outcome import leaving_failure

    with (
        step_process("compare") as process,
        leaving_failure(store, process.pipeline_run, "compare"),
    ):
        with importing():
            from components.compare.candidates import Trained
            from components.compare.comparison import ComparedFiles, compare_models

        left = {each.metadata["mlflow_run_id"]: Path(each.path) for each in histories}
        run_id = compare_models(
            [
                Trained(run_id, folder=Path(each.path), history=left[run_id])
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
            ComparedFiles(
                model=Path(model.path),
                history=Path(history.path),
                report=Path(report.path),
                table=Path(table.path),
            ),
        )
        for artifact in (model, history):
            artifact.metadata["mlflow_run_id"] = run_id
        return run_id
