"""The training pipeline: volumes in, an honestly scored, registered model out."""

from typing import NamedTuple

from kfp import dsl

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.profile.component import profile
from components.register.component import register
from components.split.component import split
from components.train.component import train


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
    """Ingests a source, trains on it and registers the model; checks may stop it on the way.

    Args:
        source: Where the volumes come from: a folder, a .zip, s3://bucket/prefix,
            kaggle:owner/dataset or synthetic:PATIENTS.
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
    dataset_id, manifest = ingested.outputs["Output"], ingested.outputs["manifest"]
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}

    profiled = profile(
        **data, ingest_account=ingested.outputs["ingest_account"], settings=profile_settings
    )
    assigned = split(**data, settings=split_settings).after(profiled)
    parts = {"split_id": assigned.outputs["Output"], "split": assigned.outputs["split"]}

    trained = train(
        **data,
        **parts,
        profile_report=profiled.outputs["report"],
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        settings=train_settings,
        run_name=run_name,
    )
    result = {"mlflow_run_id": trained.outputs["Output"], "model": trained.outputs["model"]}
    evaluated = evaluate(
        **data, **parts, **result, history=trained.outputs["history"], settings=evaluate_settings
    )
    registered = register(
        **data,
        **parts,
        **result,
        per_patient=evaluated.outputs["per_patient"],
        metrics=evaluated.outputs["metrics"],
        settings=register_settings,
    )
    # The source may have grown under the same name, so ingest always runs; and KFP's cache goes
    # by the ids of input artifacts, so behind it nothing would ever be found.
    for task in (ingested, profiled, assigned, trained, evaluated, registered):
        task.set_caching_options(enable_caching=False)

    return TrainingOutputs(
        dataset_id=dataset_id,
        split_id=assigned.outputs["Output"],
        mlflow_run_id=trained.outputs["Output"],
        model_uri=registered.outputs["model_uri"],
        model_version=registered.outputs["model_version"],
        promoted=registered.outputs["promoted"],
        reason=registered.outputs["reason"],
        manifest=manifest,
        profile=profiled.outputs["profile"],
        profile_report=profiled.outputs["report"],
        split=assigned.outputs["split"],
        evaluation_report=evaluated.outputs["report"],
        decision_report=registered.outputs["report"],
        per_patient=evaluated.outputs["per_patient"],
        metrics=evaluated.outputs["metrics"],
    )
