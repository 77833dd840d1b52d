"""Kubeflow's MLflow plugin, as the installation has it, and a run without it."""

import pytest

pytestmark = pytest.mark.kubeflow

ROOT = """
import json, mlflow
run = mlflow.MlflowClient().get_run(sys.argv[1])
print(json.dumps([run.info.status, sorted(run.data.metrics)]))
"""


@pytest.fixture(scope="module")
def without_plugin(installation):
    return installation.submit("--no-mlflow-plugin")


@pytest.fixture(scope="module")
def with_plugin(installation, without_plugin):
    run = installation.submit()
    if not (installation.find(run).plugins_output or {}).get("mlflow"):
        installation.terminate(run)
        pytest.skip("Kubeflow's MLflow plugin is off")
    return run


def test_a_run_joins_the_plugins_run(installation, with_plugin, as_step, mlflow_runs):
    """With the plugin's injection, the training run is that of its task, or else a new one."""
    installation.succeeds(with_plugin)
    root = installation.find(with_plugin).plugins_output["mlflow"].entries["root_run_id"].value
    status, metrics = as_step(ROOT, root)
    assert status == "FINISHED"
    assert "patient_dice_mean" in metrics
    (training,) = mlflow_runs(with_plugin, "brainseg.training")
    assert training["status"] == "FINISHED"
    assert training["tags"]["mlflow.parentRunId"] == root


def test_a_run_without_the_plugin_has_a_run_of_its_own(installation, without_plugin, mlflow_runs):
    installation.succeeds(without_plugin)
    assert not (installation.find(without_plugin).plugins_output or {}).get("mlflow")
    found = mlflow_runs(without_plugin)
    assert len(found) == 2
    assert {one["status"] for one in found} == {"FINISHED"}
