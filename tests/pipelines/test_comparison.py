"""The comparison graph: its YAML, and a whole run in real processes."""

import csv
import json

import pytest
from google.protobuf.json_format import MessageToDict
from mlflow import MlflowClient

from components.shared.storage.store import open_store
from pipelines.comparison import comparison

_PRESET = """
profile: {montage_volumes: 0, min_patients: 6}
split: {validation_fraction: 0.3}
train:
  network: {encoder_weights: none, encoder_depth: 3, image_size: 32, decoder_channels: [16, 8, 8]}
  optimizer: {learning_rate: 0.002}
  sampling: {batch_size: 8}
  schedule: {epochs: 1}
  compute: {threads: 1}
evaluate: {overlay_volumes: 1}
recipes:
  light: {network: {encoder: mobilenet_v2}}
  pyramid:
    network: {architecture: fpn, encoder: resnet18, encoder_depth: 5, decoder_channels: null}
"""


@pytest.fixture(scope="module")
def spec():
    return MessageToDict(comparison.pipeline_spec)


def test_what_meets_test_patients_and_gate_is_what_compare_chose(spec):
    tasks = spec["root"]["dag"]["tasks"]
    for step in ("evaluate", "register"):
        model = tasks[step]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
        run_id = tasks[step]["inputs"]["parameters"]["mlflow_run_id"]["taskOutputParameter"]
        assert model == {"outputArtifactKey": "model", "producerTask": "brainseg-recipes"}
        assert run_id["producerTask"] == "brainseg-recipes"
    outputs = spec["components"]["comp-brainseg-recipes"]["dag"]["outputs"]["artifacts"]
    (selector,) = outputs["model"]["artifactSelectors"]
    assert selector == {"outputArtifactKey": "model", "producerSubtask": "compare"}


def test_the_list_of_recipes_has_to_be_given():
    assert comparison.required_inputs == ["source", "store", "recipes"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "two.yaml").write_text(_PRESET)
    return folder


@pytest.fixture(scope="module")
def result(work, brainseg):
    run = brainseg(
        *("run", "--pipeline", "comparison", "--source", "synthetic:10,seed=3"),
        *("--preset", "two.yaml", "--output", "out", "--json"),
        cwd=work,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def runs(result):
    client = MlflowClient(result["tracking_uri"])
    return {
        run.data.tags.get("label", ""): run for run in client.search_runs([result["experiment_id"]])
    }


@pytest.mark.slow
def test_the_best_on_validation_patients_is_registered_as_its_own_run(result, runs):
    with open(result["reports"]["recipes"], newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["recipe"] for row in rows} == {"light", "pyramid"}
    best = max(rows, key=lambda row: float(row["validation_patient_dice_mean"]))
    assert result["mlflow_run_id"] == best["mlflow_run_id"] == runs[best["recipe"]].info.run_id
    version = MlflowClient(result["tracking_uri"]).get_model_version("brainseg", "1")
    assert version.run_id == result["mlflow_run_id"]
    assert runs[""].data.tags["chosen_on_validation"] == best["recipe"]


@pytest.mark.slow
def test_only_the_chosen_model_met_the_test_patients(result, runs):
    (loser,) = {"light", "pyramid"} - {runs[""].data.tags["chosen_on_validation"]}
    assert "patient_dice_mean" not in runs[loser].data.metrics
    assert "decision" not in runs[loser].data.tags
    dice = result["metrics"]["patient_dice_mean"]
    assert runs[""].data.metrics["patient_dice_mean"] == dice
    assert runs[""].data.tags["decision"] in ("promoted", "rejected")


@pytest.mark.slow
def test_all_runs_end_and_no_state_is_left(result, runs, work):
    assert set(runs) == {"", "light", "pyramid"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    store = open_store(str(work / "brainseg-runs" / "store"))
    assert list(store.keys("checkpoints/")) == []
    assert set(result["reports"]) >= {"comparison", "evaluation", "decision", "recipes"}
