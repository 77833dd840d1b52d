"""All pipelines to their end, at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.doctor.cluster.kubeflow import find_installation
from tests.kubeflow.conftest import PATIENTS, STEPS
from tests.kubeflow.metadata import artifacts_of, metadata_store

pytestmark = pytest.mark.kubeflow

GRAPHS = {
    "training": STEPS,
    "retraining": ("ingest", "check-data", *STEPS[1:], "notify"),
    "comparison": (*STEPS, "compare"),
    "cross-validation": ("ingest", "profile", "fold", "split", "train", "evaluate", "aggregate"),
}
TRAINED = "brainseg.training"
VERSIONS = """
import json, mlflow
found = mlflow.MlflowClient().search_model_versions("name = 'brainseg-check'")
print(json.dumps([version.run_id for version in found]))
"""


@pytest.fixture(scope="module")
def runs(installation):
    """A run of each pipeline; two equal ones of `training` are submitted at the same moment."""
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: installation.submit(), range(2)))
    others = {
        name: installation.submit("--pipeline", name) for name in GRAPHS if name != "training"
    }
    return {"training": both[0], "second": both[1], **others}


@pytest.fixture
def ended(installation, runs):
    """A run by its name in `runs`, once it has succeeded."""

    def wait(name):
        installation.succeeds(runs[name])
        return runs[name]

    return wait


@pytest.mark.parametrize("name", [*GRAPHS, "second"])
def test_a_pipeline_runs_to_its_end(installation, runs, name):
    installation.succeeds(runs[name])
    wanted, found = GRAPHS.get(name, STEPS), installation.steps(runs[name])
    assert {step: found.get(step) for step in wanted} == dict.fromkeys(wanted, "Succeeded")


@pytest.mark.parametrize("name", [*GRAPHS, "second"])
def test_mlflow_has_the_training_runs_of_a_pipeline_run(ended, mlflow_runs, name):
    found = mlflow_runs(ended(name), TRAINED)
    labels = {"comparison": ["first", "second"], "cross-validation": ["fold-1", "fold-2"]}
    assert sorted(one["tags"].get("label", "") for one in found) == labels.get(name, [""])
    assert {one["status"] for one in found} == {"FINISHED"}


def test_kubeflows_pages_have_reports_and_metrics(installation, ended):
    run = ended("training")
    with metadata_store(find_installation(installation.cluster).namespace) as address:
        found = artifacts_of(address, run.id)
    reports = [one.uri for one in found if one.type == "system.HTML"]
    steps = sorted(uri.partition(f"/{run.id}/")[2].partition("/")[0] for uri in reports)
    assert steps == ["evaluate", "profile", "register"]
    (metrics,) = [one.values for one in found if one.type == "system.Metrics"]
    assert 0 <= metrics["patient_dice_mean"] <= 1


def test_two_equal_runs_at_once_register_two_versions(ended, mlflow_runs, as_step):
    found = [mlflow_runs(ended(name), TRAINED)[0] for name in ("training", "second")]
    registered = as_step(VERSIONS)
    assert [registered.count(one["id"]) for one in found] == [1, 1]


def test_a_comparison_measures_the_model_of_every_recipe(ended, mlflow_runs):
    found = mlflow_runs(ended("comparison"), TRAINED)
    assert all("validation_patient_dice_mean" in one["metrics"] for one in found)
    assert sorted(one["tags"]["chosen_on_validation"] for one in found) == ["no", "yes"]


def test_cross_validation_scores_every_patient(ended, mlflow_runs):
    found = mlflow_runs(ended("cross-validation"))
    whole = [one for one in found if TRAINED not in one["tags"]]
    assert [one["metrics"]["patients"] for one in whole if "patients" in one["metrics"]] == [
        PATIENTS
    ]
