"""The training pipeline: volumes in, an evaluated and registered model out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kfp import dsl

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.profile.component import profile
from components.register.component import register
from components.split.component import split
from components.train.component import train


class DataTasks(NamedTuple):
    """A checked and divided data set version.

    Attributes:
        profile: Task with its report.
        inputs: Arguments of every later step: store, data set and split.
    """

    profile: dsl.PipelineTask
    inputs: Mapping[str, Any]


def profile_and_split(
    ingested: dsl.PipelineTask,
    *,
    store: str,
    settings: Mapping[str, str],
    reference_id: str = "",
    previous_split: str = "",
) -> DataTasks:
    """Adds the steps between ingest and training."""
    data = {
        "store": store,
        "dataset_id": ingested.outputs["Output"],
        "manifest": ingested.outputs["manifest"],
    }
    profiled = profile(
        **data,
        ingest_account=ingested.outputs["ingest_account"],
        settings=settings["profile"],
        reference_id=reference_id,
    )
    assigned = split(**data, settings=settings["split"], previous=previous_split).after(profiled)
    parts = {"split_id": assigned.outputs["Output"], "split": assigned.outputs["split"]}
    return DataTasks(profiled, {**data, **parts})


def train_and_register(
    data: DataTasks, *, settings: Mapping[str, str], run_name: str
) -> dict[str, Any]:
    """Adds all steps after the split; returns the outputs of `evaluate_and_register`."""
    trained = train(
        **data.inputs,
        profile_report=data.profile.outputs["report"],
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        settings=settings["train"],
        run_name=run_name,
        register_settings=settings["register"],
    )
    return evaluate_and_register(
        data,
        mlflow_run_id=trained.outputs["Output"],
        model=trained.outputs["model"],
        history=trained.outputs["history"],
        settings=settings,
    )


def evaluate_and_register(
    data: DataTasks,
    *,
    mlflow_run_id: Any,  # noqa: ANN401  # KFP has no type for the future output of a task
    model: Any,  # noqa: ANN401
    history: Any,  # noqa: ANN401
    settings: Mapping[str, str],
) -> dict[str, Any]:
    """Adds the test and the gate of a trained model; returns the outputs of a training graph."""
    result = {"mlflow_run_id": mlflow_run_id, "model": model}
    evaluated = evaluate(**data.inputs, **result, history=history, settings=settings["evaluate"])
    registered = register(
        **data.inputs,
        **result,
        per_patient=evaluated.outputs["per_patient"],
        metrics=evaluated.outputs["metrics"],
        settings=settings["register"],
    )
    decision = ("model_uri", "model_version", "promoted", "reason")
    return {
        **{name: data.inputs[name] for name in ("dataset_id", "split_id", "manifest", "split")},
        "mlflow_run_id": mlflow_run_id,
        **{name: registered.outputs[name] for name in decision},
        "profile": data.profile.outputs["profile"],
        "profile_report": data.profile.outputs["report"],
        "evaluation_report": evaluated.outputs["report"],
        "decision_report": registered.outputs["report"],
        "per_patient": evaluated.outputs["per_patient"],
        "metrics": evaluated.outputs["metrics"],
    }


class TrainingOutputs(NamedTuple):
    """Results of a run."""

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
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        ingest_settings: YAML of the step's settings, like the five below. Empty: defaults.
        profile_settings: Limits that stop the run before it needs a GPU.
        split_settings: Method and fractions of the parts.
        train_settings: Recipe.
        evaluate_settings: Threshold and pictures.
        register_settings: Conditions for a new champion.
        run_name: Name of the run in MLflow, next to data set and date.

    Returns:
        Ids, decision and reports of the run.
    """
    settings = {
        "profile": profile_settings,
        "split": split_settings,
        "train": train_settings,
        "evaluate": evaluate_settings,
        "register": register_settings,
    }
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    data = profile_and_split(ingested, store=store, settings=settings)
    return TrainingOutputs(**train_and_register(data, settings=settings, run_name=run_name))
