"""Predict: apply a model to new patients."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def predict(
    model: str,
    source: str,
    settings: str,
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> int:
    """Predicts every volume of a source, and lists unreadable volumes with their reasons.

    Args:
        model: `champion`, `models:/name@alias`, `models:/name/version` or `runs:/id/path`.
        source: URI of the volumes; `brainseg predict --help` lists the forms.
        settings: YAML of `components.predict.settings.PredictSettings`.
        predictions: Folder with one mask per volume (`VOLUME_mask.tif`) and `predictions.csv`; a
            mask of several targets is a label map or has a DICOM segment for each.
        report: HTML page with pictures.

    Returns:
        Number of volumes with a mask.
    """
    import shutil
    from pathlib import Path

    from components.predict.prediction import predict_source
    from components.predict.settings import PredictSettings
    from components.shared.config import parse_config
    from components.shared.process import step_process

    with step_process("predict"):
        config = parse_config(PredictSettings, settings, "predict")
        result = predict_source(model, source, Path(predictions.path), config)
        shutil.copyfile(result.report, report.path)
    return result.predicted


@trainer_step
def plan_predictions(
    model: str, source: str, store: str, settings: str, plan: dsl.Output[dsl.Dataset]
) -> list[dict[str, int]]:
    """Lists the volumes that a model version has not predicted, and divides them among pods.

    Args:
        model: `champion` or `models:/name/version`.
        source: URI of the volumes, with or without labels.
        store: `s3://bucket/prefix` or a folder with the predictions.
        settings: YAML of `PredictSettings`; `shard_volumes` decides the number of shards.
        plan: Version of the model and names of the volumes (JSON).

    Returns:
        `index` and `count` of each shard.
    """
    from pathlib import Path

    from components.predict.planning import plan_predictions
    from components.predict.settings import PredictSettings
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("plan-predictions", store):
        config = parse_config(PredictSettings, settings, "predict")
        planned = plan_predictions(model, source, open_store(store), config)
        Path(plan.path).write_text(planned.model_dump_json())
        return planned.shards(config.shard_volumes)


@trainer_step
def predict_shard(
    store: str,
    settings: str,
    pipeline_run: str,
    index: int,
    count: int,
    plan: dsl.Input[dsl.Dataset],
) -> None:
    """Predicts every `count`-th volume of a plan, and stores mask and row of each.

    Args:
        store: `s3://bucket/prefix` or a folder with the predictions.
        settings: YAML of `PredictSettings`.
        pipeline_run: Id of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`), used if the
            environment variable `KFP_RUN_ID` is not set.
        index: Number of the first volume.
        count: Number of shards.
        plan: Version of the model and names of the volumes (JSON).
    """
    from pathlib import Path

    from components.predict.planning import InferencePlan
    from components.predict.settings import PredictSettings
    from components.predict.sharding import predict_shard
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    label = f"shard-{index}"
    with running_step("predict-shard", store, label, pipeline_run) as process:
        config = parse_config(PredictSettings, settings, "predict")
        planned = InferencePlan.model_validate_json(Path(plan.path).read_bytes())
        predict_shard(
            planned,
            open_store(store),
            config,
            index=index,
            count=count,
            pipeline_run=process.pipeline_run,
        )


@trainer_step
def join_predictions(
    store: str,
    pipeline_run: str,
    plan: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> int:
    """Writes the table of all predictions of a model version, a page and the run's outcome.

    Args:
        store: `s3://bucket/prefix` or a folder with the predictions.
        pipeline_run: Id of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`), used if the
            environment variable `KFP_RUN_ID` is not set.
        plan: Version of the model and names of the volumes (JSON).
        predictions: Table with a row per volume (Parquet).
        report: HTML page.

    Returns:
        Number of volumes that this run has predicted.
    """
    from pathlib import Path

    from components.predict.joining import join_predictions
    from components.predict.planning import InferencePlan
    from components.shared.storage.outcome import leave_outcome, running_step
    from components.shared.storage.store import open_store

    with running_step("join-predictions", store, pipeline_run=pipeline_run) as process:
        opened = open_store(store)
        planned = InferencePlan.model_validate_json(Path(plan.path).read_bytes())
        joined = join_predictions(planned, opened, process.pipeline_run)
        Path(predictions.path).write_bytes(joined.table)
        Path(report.path).write_text(joined.page)
        leave_outcome(opened, process.pipeline_run, joined.outcome)
    return joined.predicted
