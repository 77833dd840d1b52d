"""Runs that are terminated in every step."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kubeflow.conftest import STEPS
from tests.waiting import until

pytestmark = pytest.mark.kubeflow

STATUS = """
import json, mlflow
print(json.dumps(mlflow.MlflowClient().get_run(sys.argv[1]).info.status))
"""


@pytest.fixture(scope="module")
def canceled(installation):
    """A retraining run for each step, terminated in it: step -> run."""

    def cancel(step):
        run = installation.submit("--pipeline", "retraining", "--parameter", "force=true")
        installation.until_running(run, step, timeout_s=1800)
        installation.terminate(run)
        return run

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(STEPS, pool.map(cancel, STEPS), strict=True))


@pytest.mark.parametrize("step", STEPS)
def test_a_canceled_run_leaves_no_pod_and_runs_its_exit_handler(installation, canceled, step):
    run = canceled[step]
    assert installation.wait(run) in ("CANCELED", "FAILED")
    assert "CANCELING" in [each.state for each in installation.find(run).state_history]
    # Argo gives the node up, whose deadline is over; the pod ends its work
    until(lambda: "Succeeded" in installation.phases(run, "notify"), "end of notify", 300)
    until(lambda: not installation.phases(run) & {"Pending", "Running"}, "end of the pods", 300)


@pytest.mark.parametrize("step", STEPS)
def test_mlflows_run_of_a_canceled_run_does_not_go_on(installation, canceled, as_step, step):
    """ToMLflowTerminalStatus in KFP's plugin makes KILLED of CANCELED, and FAILED of FAILED."""
    run = canceled[step]
    state = installation.wait(run)
    plugin = (installation.find(run).plugins_output or {}).get("mlflow")
    if plugin is None:
        pytest.skip("Kubeflow's MLflow plugin is off: nobody ends MLflow's run")
    root = plugin.entries["root_run_id"].value
    wanted = "KILLED" if state == "CANCELED" else "FAILED"
    until(lambda: as_step(STATUS, root) == wanted, f"MLflow run {wanted}", 120)
