"""The ensemble pipeline: one model per fold, averaged, evaluated and registered as one."""

from typing import NamedTuple

from kfp import dsl

from components.ingest.component import ingest
from components.split.component import fold, split
from components.train.component import ensemble as average
from components.train.component import train
from pipelines.training import TrainingOutputs, evaluate_and_register, profile_and_split


class MembersOutputs(NamedTuple):
    """The averaged model."""

    mlflow_run_id: str
    model: dsl.Model
    history: dsl.Artifact


# A pipeline of its own for the same reason as `pipelines.cross_validation.train_folds`.
@dsl.pipeline(name="brainseg-members")
def train_members(
    store: str,
    dataset_id: str,
    split_id: str,
    folds: list[dict[str, str]],
    manifest: dsl.Input[dsl.Dataset],
    profile_report: dsl.Input[dsl.HTML],
    train_settings: str,
    ensemble_settings: str,
    register_settings: str,
    run_name: str,
) -> MembersOutputs:
    """Trains one member per fold, in parallel on a cluster, and averages them."""
    data = {"store": store, "dataset_id": dataset_id}
    with dsl.ParallelFor(folds, name="member") as one:
        # A split that follows one with the same patients is equal to it.
        assigned = split(
            **data, manifest=manifest, settings="", previous=one.split_id, label=one.label
        )
        trained = train(
            **data,
            manifest=manifest,
            split_id=assigned.outputs["Output"],
            split=assigned.outputs["split"],
            profile_report=profile_report,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            settings=train_settings,
            label=one.label,
            run_name=run_name,
            register_settings=register_settings,
        )
    averaged = average(
        **data,
        split_id=split_id,
        models=dsl.Collected(trained.outputs["model"]),
        histories=dsl.Collected(trained.outputs["history"]),
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        settings=ensemble_settings,
    )
    return MembersOutputs(
        mlflow_run_id=averaged.outputs["Output"],
        model=averaged.outputs["model"],
        history=averaged.outputs["history"],
    )


@dsl.pipeline(name="brainseg-ensemble")
def ensemble(
    source: str,
    store: str,
    ingest_settings: str = "",
    profile_settings: str = "",
    split_settings: str = "",
    fold_settings: str = "",
    train_settings: str = "",
    ensemble_settings: str = "",
    evaluate_settings: str = "",
    register_settings: str = "",
    run_name: str = "",
) -> TrainingOutputs:
    """Trains one model per fold and registers their average.

    The patients outside the test part are divided into folds. Each member is trained on all folds
    but one, which is its validation part. No member sees the test patients, so that the average
    passes through the same gate as a single model.

    Args:
        source: URI of the volumes, as for training.
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        ingest_settings: YAML of the step's settings, like the seven below. Empty: defaults.
        profile_settings: Limits that stop the run before it needs a GPU.
        split_settings: Method and fractions of the parts.
        fold_settings: Number of members and seed.
        train_settings: Recipe of every member.
        ensemble_settings: Largest size.
        evaluate_settings: Threshold and pictures.
        register_settings: Conditions for a new champion.
        run_name: Name of the run in MLflow, next to data set and date.

    Returns:
        Ids, decision and reports of the run.
    """
    settings = {
        "profile": profile_settings,
        "split": split_settings,
        "evaluate": evaluate_settings,
        "register": register_settings,
    }
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    data = profile_and_split(ingested, store=store, settings=settings)
    known = {name: data.inputs[name] for name in ("store", "dataset_id", "manifest")}
    folded = fold(**known, settings=fold_settings, split_id=data.inputs["split_id"])
    averaged = train_members(
        **known,
        split_id=data.inputs["split_id"],
        folds=folded.output,
        profile_report=data.profile.outputs["report"],
        train_settings=train_settings,
        ensemble_settings=ensemble_settings,
        register_settings=register_settings,
        run_name=run_name,
    )
    outputs = evaluate_and_register(
        data,
        mlflow_run_id=averaged.outputs["mlflow_run_id"],
        model=averaged.outputs["model"],
        history=averaged.outputs["history"],
        settings=settings,
    )
    return TrainingOutputs(**outputs)
