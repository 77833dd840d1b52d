"""The cross-validation pipeline: the score of a recipe over all patients, and no model."""

from typing import NamedTuple

from kfp import dsl

from components.aggregate.component import aggregate
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.profile.component import profile
from components.split.component import fold, split
from components.train.component import train


class CrossValidationOutputs(NamedTuple):
    """Results of a run."""

    dataset_id: str
    mlflow_run_id: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML
    cross_validation_report: dsl.HTML
    out_of_fold: dsl.Dataset
    metrics: dsl.Metrics


class FoldsOutputs(NamedTuple):
    """Results of all folds together."""

    mlflow_run_id: str
    report: dsl.HTML
    table: dsl.Dataset
    metrics: dsl.Metrics


# A pipeline of its own, whose inputs are all that the folds need: KFP's local runner replaces an
# outer task's parameter inside a loop by the loop's item.
@dsl.pipeline(name="brainseg-folds")
def train_folds(
    store: str,
    dataset_id: str,
    folds: list[dict[str, str]],
    manifest: dsl.Input[dsl.Dataset],
    profile_report: dsl.Input[dsl.HTML],
    train_settings: str,
    evaluate_settings: str,
    aggregate_settings: str,
    run_name: str,
) -> FoldsOutputs:
    """Trains and evaluates one model per fold, in parallel on a cluster, and joins the scores."""
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    with dsl.ParallelFor(folds, name="fold") as one:
        # A split that follows one with the same patients is equal to it.
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
    aggregated = aggregate(
        **data,
        models=dsl.Collected(trained.outputs["model"]),
        per_patient=dsl.Collected(evaluated.outputs["per_patient"]),
        settings=aggregate_settings,
    )
    return FoldsOutputs(
        mlflow_run_id=aggregated.outputs["Output"],
        report=aggregated.outputs["report"],
        table=aggregated.outputs["table"],
        metrics=aggregated.outputs["metrics"],
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
    aggregate_settings: str = "",
    run_name: str = "",
) -> CrossValidationOutputs:
    """Scores each patient by a model trained on the others.

    The patients are divided into folds. For each fold, a model is trained on the other folds.
    Nothing is registered and the champion stays: the result is about the recipe.

    Args:
        source: URI of the volumes, as for training.
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        ingest_settings: YAML of the step's settings, like the five below. Empty: defaults.
        profile_settings: Limits that stop the run before it needs a GPU.
        fold_settings: Number of folds and seed.
        train_settings: Recipe.
        evaluate_settings: Threshold and pictures.
        aggregate_settings: Pictures of the report.
        run_name: Name of the run in MLflow, next to data set and date.

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
        aggregate_settings=aggregate_settings,
        run_name=run_name,
    )
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
