"""The cross-validation graph: its YAML, and a whole run in real processes."""

import csv
import json

import pytest
from google.protobuf.json_format import MessageToDict
from mlflow import MlflowClient

from components.shared.storage.store import open_store
from pipelines.cross_validation import cross_validation
from pipelines.placement.placing import placed
from pipelines.placement.profiles import load_profile
from tests.pipelines.conftest import TINY_TRAINING

_SETTINGS = (
    "fold.folds=2",
    *TINY_TRAINING,
    "evaluate.threshold=0.4",
    "aggregate.overlay_volumes=2",
)


@pytest.fixture(scope="module")
def spec():
    return MessageToDict(cross_validation.pipeline_spec)


def test_the_number_of_folds_is_known_to_the_run_alone(spec):
    (loop,) = [
        task
        for part in spec["components"].values()
        for task in part.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    ]
    assert "inputParameter" in loop["parameterIterator"]["items"]
    assert "iteratorPolicy" not in loop  # as many at once as the cluster has room for
    folds = spec["root"]["dag"]["tasks"]["brainseg-folds"]["inputs"]["parameters"]["folds"]
    assert folds["taskOutputParameter"]["producerTask"] == "fold"


def test_nothing_is_registered(spec):
    steps = {name.removeprefix("comp-") for name in spec["components"]}
    assert {"train", "evaluate", "aggregate"} <= steps
    assert not {"register", "check-data"} & steps


def test_training_in_the_loop_has_the_pods_of_training():
    made = placed(cross_validation, load_profile("gpu"))
    container = made.pipeline_spec.deployment_spec["executors"]["exec-train"]["container"]
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    platform = MessageToDict(made.platform_spec)["platforms"]["kubernetes"]
    pods = platform["deploymentSpec"]["executors"]
    secrets = {source["secretName"] for source in pods["exec-train"]["secretAsEnv"]}
    assert secrets == {"brainseg-store", "brainseg-mlflow"}
    loops = [
        part.dag.tasks["train"]
        for part in made.pipeline_spec.components.values()
        if "train" in part.dag.tasks
    ]
    assert [task.retry_policy.max_retry_count for task in loops] == [2]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def done(work, brainseg):
    settings = [part for change in _SETTINGS for part in ("--set", change)]
    run = brainseg(
        *("run", "--pipeline", "cross-validation", "--source", "synthetic:8,seed=3"),
        *("--preset", "demo", "--output", "out", "--json", *settings),
        cwd=work,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), run.stderr


@pytest.fixture(scope="module")
def runs(done):
    result, _ = done
    client = MlflowClient(result["tracking_uri"])
    return {
        run.data.tags.get("label", ""): run for run in client.search_runs([result["experiment_id"]])
    }


@pytest.mark.slow
def test_every_patient_was_predicted_by_a_model_that_never_saw_it(done, work, runs):
    result, _ = done
    with open(result["reports"]["out_of_fold"], newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["patient"] for row in rows}) == len(rows) == 8
    store = open_store(str(work / "brainseg-runs" / "store"))
    for row in rows:
        split_id = runs[row["fold"]].data.tags["split_id"]
        split = json.loads(store.read(f"splits/{split_id}.json"))
        assert row["patient"] in split["test"]
        assert row["patient"] not in {*split["train"], *split["validation"]}


@pytest.mark.slow
def test_the_runs_end_as_one_parent_with_a_child_a_fold(done, runs):
    result, _ = done
    assert set(runs) == {"", "fold-1", "fold-2"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent = runs[""]
    assert parent.info.run_id == result["mlflow_run_id"]
    for label in ("fold-1", "fold-2"):
        data = runs[label].data
        assert data.tags["mlflow.parentRunId"] == parent.info.run_id
        dice = data.metrics["patient_dice_mean"]
        assert parent.data.metrics[f"{label}/patient_dice_mean"] == dice
        assert data.metrics["threshold"] == 0.4
    for name in ("patient_dice_mean", "patient_dice_median", "patient_dice_sd"):
        assert parent.data.metrics[name] == result["metrics"][name]


@pytest.mark.slow
def test_people_see_which_fold_is_worked_on(done):
    _, told = done
    assert [line for line in told.splitlines() if line.startswith("  fold-1: exported segmenter")]
    assert [line for line in told.splitlines() if line.startswith("  fold-2: exported segmenter")]


@pytest.mark.slow
def test_no_state_is_left(done, work):
    store = open_store(str(work / "brainseg-runs" / "store"))
    assert list(store.keys("checkpoints/")) == []
    assert "Worst patients" in (work / "out" / "cross_validation.html").read_text()
