"""The training pipeline: volumes in, an honestly scored, registered model out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kfp import dsl

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.profile.component import profile
from components.register.component import register
from components.split.component import split
from components.train.component import train


class Learned(NamedTuple):
    """The tasks from a data set version to a registered model."""

    profile: dsl.PipelineTask
    split: dsl.PipelineTask
    train: dsl.PipelineTask
    evaluate: dsl.PipelineTask
    register: dsl.PipelineTask


def learn(
    ingested: dsl.PipelineTask,
    *,
    store: str,
    settings: Mapping[str, str],
    run_name: str,
    reference_id: str = "",
    previous_split: str = "",
) -> Learned:
    """The calls that every graph makes once it has a data set version.

    Args:
        ingested: The task that published it.
        store: Where it lives.
        settings: YAML for each of the steps.
        run_name: What the run is called in MLflow.
        reference_id: The version that the new patients are compared with.
        previous_split: The split whose patients keep their part.
    """
    dataset_id, manifest = ingested.outputs["Output"], ingested.outputs["manifest"]
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}

    profiled = profile(
        **data,
        ingest_account=ingested.outputs["ingest_account"],
        settings=settings["profile"],
        reference_id=reference_id,
    )
    assigned = split(**data, settings=settings["split"], previous=previous_split).after(profiled)
    parts = {"split_id": assigned.outputs["Output"], "split": assigned.outputs["split"]}

    trained = train(
        **data,
        **parts,
        profile_report=profiled.outputs["report"],
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        settings=settings["train"],
        run_name=run_name,
    )
    evaluated, registered = judge(
        {**data, **parts},
        mlflow_run_id=trained.outputs["Output"],
        model=trained.outputs["model"],
        history=trained.outputs["history"],
        evaluate_settings=settings["evaluate"],
        register_settings=settings["register"],
    )
    # The source may have grown under the same name, so ingest always runs; and KFP's cache goes
    # by the ids of input artifacts, so behind it nothing would ever be found.
    for task in (ingested, profiled, assigned, trained, evaluated, registered):
        task.set_caching_options(enable_caching=False)
    return Learned(profiled, assigned, trained, evaluated, registered)


def judge(
    data: Mapping[str, Any],
    *,
    mlflow_run_id: Any,  # noqa: ANN401  # KFP names no type for what a task will have put out
    model: Any,  # noqa: ANN401
    history: Any,  # noqa: ANN401
    evaluate_settings: str,
    register_settings: str,
) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """The calls by which a trained model meets the test patients and the gate.

    Args:
        data: Inputs of both steps: store, data set and split.
        mlflow_run_id: Of the training.
        model: That it made.
        history: That it left.
        evaluate_settings: YAML.
        register_settings: YAML.

    Returns:
        The tasks evaluate and register.
    """
    result = {"mlflow_run_id": mlflow_run_id, "model": model}
    evaluated = evaluate(**data, **result, history=history, settings=evaluate_settings)
    registered = register(
        **data,
        **result,
        per_patient=evaluated.outputs["per_patient"],
        metrics=evaluated.outputs["metrics"],
        settings=register_settings,
    )
    return evaluated, registered


class TrainingOutputs(NamedTuple):
    """What a run leaves behind."""

    dataset_id: str
    split_id: str
    mlflow_run_id: str
    model_uri: str
    model_version: str
    promoted: bool
    reason: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML
    split: dsl.Artifact
    evaluation_report: dsl.HTML
    decision_report: dsl.HTML
    per_patient: dsl.Dataset
    metrics: dsl.Metrics


@dsl.pipeline(name="brainseg-training")
def training(
    source: str,
    store: str,
    ingest_settings: str = "",
    profile_settings: str = "",
    split_settings: str = "",
    train_settings: str = "",
    evaluate_settings: str = "",
    register_settings: str = "",
    run_name: str = "",
) -> TrainingOutputs:
    """Trains on a source, evaluates the model and registers it.

    Args:
        source: URI of the volumes; `brainseg ingest --help` lists the forms.
        store: Where data set versions live: s3://bucket/prefix (or a folder, on one machine).
        ingest_settings: YAML of the step's settings; so are the five below. Empty: defaults.
        profile_settings: Limits that stop the run before a GPU is used.
        split_settings: How patients are assigned to the parts.
        train_settings: The recipe.
        evaluate_settings: Threshold and pictures.
        register_settings: What a new champion must keep up with.
        run_name: What the run is called in MLflow, beside data set and date; `brainseg run`
            gives the preset's name.

    Returns:
        Ids, decision and reports of the run.
    """
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    learned = learn(
        ingested,
        store=store,
        settings={
            "profile": profile_settings,
            "split": split_settings,
            "train": train_settings,
            "evaluate": evaluate_settings,
            "register": register_settings,
        },
        run_name=run_name,
    )
    return TrainingOutputs(
        dataset_id=ingested.outputs["Output"],
        split_id=learned.split.outputs["Output"],
        mlflow_run_id=learned.train.outputs["Output"],
        model_uri=learned.register.outputs["model_uri"],
        model_version=learned.register.outputs["model_version"],
        promoted=learned.register.outputs["promoted"],
        reason=learned.register.outputs["reason"],
        manifest=ingested.outputs["manifest"],
        profile=learned.profile.outputs["profile"],
        profile_report=learned.profile.outputs["report"],
        split=learned.split.outputs["split"],
        evaluation_report=learned.evaluate.outputs["report"],
        decision_report=learned.register.outputs["report"],
        per_patient=learned.evaluate.outputs["per_patient"],
        metrics=learned.evaluate.outputs["metrics"],
    )
