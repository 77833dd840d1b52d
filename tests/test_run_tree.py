"""Several trainings in one pipeline run, in a graph of one's own and in real processes."""

import os
from unittest import mock

import pytest
from kfp import dsl, local
from mlflow import MlflowClient

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.profile.component import profile
from components.register.component import register
from components.shared.storage.store import open_store
from components.shared.tracking.local import ensure_local
from components.split.component import split
from components.train.component import train
from tests.pipelines.conftest import clean_environment

pytestmark = pytest.mark.slow

_RECIPE = (
    "{network: {encoder: %s, encoder_depth: 3, encoder_weights: none, image_size: 32, "
    "decoder_channels: [16, 8, 8]}, schedule: {epochs: 2}, sampling: {batch_size: 8}, "
    "optimizer: {learning_rate: 0.002}}"
)
_AT_ONCE = [
    {"label": "small", "recipe": _RECIPE % "mobilenet_v2"},
    {"label": "large", "recipe": _RECIPE % "resnet34"},
]


@dsl.pipeline(name="at-once")
def _at_once(
    store: str,
    dataset_id: str,
    split_id: str,
    manifest: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Artifact],
    profile_report: dsl.Input[dsl.HTML],
):
    with dsl.ParallelFor(_AT_ONCE) as item:
        train(
            store=store,
            dataset_id=dataset_id,
            split_id=split_id,
            manifest=manifest,
            split=split,
            profile_report=profile_report,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            settings=item.recipe,
            label=item.label,
            run_name="compare",
        )


@dsl.pipeline(name="three-trainings")
def _three_trainings(store: str):
    ingested = ingest(source="synthetic:8,seed=3", store=store, settings="")
    dataset_id, manifest = ingested.outputs["Output"], ingested.outputs["manifest"]
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    account = ingested.outputs["ingest_account"]
    profiled = profile(**data, ingest_account=account, settings="{min_patients: 6}")
    assigned = split(**data, settings="")
    data |= {"split_id": assigned.outputs["Output"], "split": assigned.outputs["split"]}
    described = {**data, "profile_report": profiled.outputs["report"]}
    two = _at_once(**described)
    third = train(
        **described,
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        settings=_RECIPE % "resnet18",
        label="third",
        run_name="compare",
    ).after(two)
    result = {"mlflow_run_id": third.outputs["Output"], "model": third.outputs["model"]}
    evaluated = evaluate(**data, **result, history=third.outputs["history"], settings="")
    register(
        **data,
        **result,
        per_patient=evaluated.outputs["per_patient"],
        metrics=evaluated.outputs["metrics"],
        settings="",
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with the store and the MLflow of one pipeline run with three trainings."""
    folder = tmp_path_factory.mktemp("work")
    uri = f"sqlite:///{folder}/mlflow.db"
    variables = {
        "MLFLOW_TRACKING_URI": uri,
        "KFP_RUN_ID": "run",
        "BRAINSEG_CACHE": f"{folder}/cache",
    }
    with (
        mock.patch.dict(os.environ, clean_environment(**variables), clear=True),
        mock.patch.object(local.config.LocalExecutionConfig, "instance", None),
    ):
        ensure_local(uri)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=f"{folder}/pipeline")
        _three_trainings(store=f"{folder}/store")
    return folder


@pytest.fixture
def client(done):
    return MlflowClient(f"sqlite:///{done}/mlflow.db")


@pytest.fixture
def runs(client):
    """Runs under the first word of their names."""
    experiment = client.get_experiment_by_name("brainseg").experiment_id
    return {run.info.run_name.split()[0]: run for run in client.search_runs([experiment])}


def test_the_runs_end_as_one_parent_with_its_children(client, runs):
    assert set(runs) == {"compare", "small", "large", "third"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent = runs.pop("compare")
    assert "mlflow.parentRunId" not in parent.data.tags
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}


def test_each_training_has_its_own_parameters_and_curves(client, runs):
    encoders = {name: run.data.params.get("train.network.encoder") for name, run in runs.items()}
    assert encoders == {
        "compare": None,
        "small": "mobilenet_v2",
        "large": "resnet34",
        "third": "resnet18",
    }
    for name in ("small", "large", "third"):
        points = client.get_metric_history(runs[name].info.run_id, "validation_dice")
        assert [point.step for point in points] == [1, 2]


def test_what_is_of_the_whole_pipeline_run_is_logged_once(client, runs):
    (parent,) = [run for run in runs.values() if run.inputs.dataset_inputs]
    assert parent.info.run_name.startswith("compare ")
    for run in runs.values():
        found = [item.path for item in client.list_artifacts(run.info.run_id)]
        assert ("splits" in found, "reports" in found) == (run is parent, run is parent)


def test_the_list_of_runs_shows_the_result(client, runs):
    parent, third = runs["compare"].data, runs["third"].data
    dice = third.metrics["patient_dice_mean"]
    assert parent.metrics["patient_dice_mean"] == parent.metrics["third/patient_dice_mean"] == dice
    assert parent.tags["model_version"] == "brainseg/1"
    assert parent.tags["decision"] == third.tags["decision"]
    version = client.get_model_version("brainseg", "1")
    assert version.run_id == runs["third"].info.run_id


def test_no_state_is_left(done):
    assert list(open_store(f"{done}/store").keys("checkpoints/")) == []
