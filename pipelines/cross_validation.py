"""The cross-validation pipeline: how good a recipe is, over all patients, and no model for use."""

from typing import NamedTuple

from kfp import dsl

from components.aggregate.component import aggregate
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.profile.component import profile
from components.split.component import fold, split
from components.train.component import train


class CrossValidationOutputs(NamedTuple):
    """What a run leaves behind."""

    dataset_id: str
    mlflow_run_id: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML
    cross_validation_report: dsl.HTML
    out_of_fold: dsl.Dataset
    metrics: dsl.Metrics


class FoldsOutputs(NamedTuple):
    """What the folds together leave behind."""

    mlflow_run_id: str
    report: dsl.HTML
    table: dsl.Dataset
    metrics: dsl.Metrics


# Of its own, with what the folds need as inputs: KFP's local runner gives a task in a loop the
# item of the loop in place of an outer task's parameter.
@dsl.pipeline(name="brainseg-folds")
def train_folds(
    store: str,
    dataset_id: str,
    folds: list[dict[str, str]],
    manifest: dsl.Input[dsl.Dataset],
    profile_report: dsl.Input[dsl.HTML],
    train_settings: str,
    evaluate_settings: str,
    pool_settings: str,
    run_name: str,
) -> FoldsOutputs:
    """Trains and scores a model a fold, at once on a cluster, and joins what they say.

    Args:
        store: Where the data set lives.
        dataset_id: Its version.
        folds: `label` and `split_id` of each.
        manifest: Its list of volumes.
        profile_report: For the pipeline run's MLflow run.
        train_settings: The recipe.
        evaluate_settings: Threshold and pictures.
        pool_settings: Pictures.
        run_name: What the run is called in MLflow.
    """
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    with dsl.ParallelFor(folds, name="fold") as one:
        # who follows a split with the same patients gets that split
        assigned = split(**data, settings="", previous=one.split_id, label=one.label)
        parts = {"split_id": assigned.outputs["Output"], "split": assigned.outputs["split"]}
        trained = train(
            **data,
            **parts,
            profile_report=profile_report,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            settings=train_settings,
            label=one.label,
            run_name=run_name,
        )
        evaluated = evaluate(
            **data,
            **parts,
            mlflow_run_id=trained.outputs["Output"],
            model=trained.outputs["model"],
            history=trained.outputs["history"],
            settings=evaluate_settings,
            label=one.label,
        )
    pooled = aggregate(
        **data,
        models=dsl.Collected(trained.outputs["model"]),
        per_patient=dsl.Collected(evaluated.outputs["per_patient"]),
        settings=pool_settings,
    )
    for task in (assigned, trained, evaluated, pooled):
        task.set_caching_options(enable_caching=False)
    return FoldsOutputs(
        mlflow_run_id=pooled.outputs["Output"],
        report=pooled.outputs["report"],
        table=pooled.outputs["table"],
        metrics=pooled.outputs["metrics"],
    )


@dsl.pipeline(name="brainseg-cross-validation")
def cross_validation(
    source: str,
    store: str,
    ingest_settings: str = "",
    profile_settings: str = "",
    fold_settings: str = "",
    train_settings: str = "",
    evaluate_settings: str = "",
    pool_settings: str = "",
    run_name: str = "",
) -> CrossValidationOutputs:
    """Scores each patient by a model trained on the others.

    The patients are dealt to folds; for each a model is trained on the others. Nothing is
    registered, and no champion changes: the result is about the recipe.

    Args:
        source: Where the volumes come from; as for training.
        store: Where data set versions live: s3://bucket/prefix (or a folder, on one machine).
        ingest_settings: YAML of the step's settings; so are the five below. Empty: defaults.
        profile_settings: Limits that stop the run before a GPU is used.
        fold_settings: How many folds, and how patients are dealt to them.
        train_settings: The recipe.
        evaluate_settings: Threshold and pictures.
        pool_settings: Pictures of the report.
        run_name: What the run is called in MLflow, beside data set and date.

    Returns:
        Ids, table and report of the run.
    """
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    dataset_id, manifest = ingested.outputs["Output"], ingested.outputs["manifest"]
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    profiled = profile(
        **data, ingest_account=ingested.outputs["ingest_account"], settings=profile_settings
    )
    folded = fold(**data, settings=fold_settings).after(profiled)
    trained = train_folds(
        **data,
        folds=folded.outputs["Output"],
        profile_report=profiled.outputs["report"],
        train_settings=train_settings,
        evaluate_settings=evaluate_settings,
        pool_settings=pool_settings,
        run_name=run_name,
    )
    for task in (ingested, profiled, folded, trained):  # as in training
        task.set_caching_options(enable_caching=False)
    return CrossValidationOutputs(
        dataset_id=dataset_id,
        mlflow_run_id=trained.outputs["mlflow_run_id"],
        manifest=manifest,
        profile=profiled.outputs["profile"],
        profile_report=profiled.outputs["report"],
        cross_validation_report=trained.outputs["report"],
        out_of_fold=trained.outputs["table"],
        metrics=trained.outputs["metrics"],
    )
