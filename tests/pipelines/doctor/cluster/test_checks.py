import json
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from components.shared.errors import UserError
from pipelines.cli import app
from pipelines.doctor.cluster.checks import run_cluster_checks
from tests.pipelines.doctor.cluster.api_server import OF_RUNS, waiting
from tests.pipelines.doctor.cluster.conftest import target_of

NO_RIGHT = 'User "someone" cannot create resource "pods" in API group "" in the namespace'
COMMAND = ["doctor", "--cluster", "--profile", "test", "--store", "s3://mri/brainseg"]


def test_a_cluster_on_which_a_run_would_go_well(server, target):
    found = run_cluster_checks(target)
    assert {check.status for check in found} == {"ok"}, found
    assert list(dict.fromkeys(check.name for check in found)) == [
        *("Kubernetes", "clock", "namespace", "your rights", "run's rights", "settings", "quota"),
        *("nodes", "Kubeflow", "retry rule", "zone", "MLflow plugin", "pod users", "artifacts"),
        *("pod, data", "store, data", "MLflow, data"),
        *("pod, trainer", "store, trainer", "MLflow, trainer"),
    ]
    assert not server.sent, "pods are left behind"


def test_no_value_of_a_secret_is_told(server, target):
    text = str(run_cluster_checks(target))
    for value in ("the-id", "the-key", "the-user", "the-password"):
        assert value not in text


def test_a_caller_who_may_nothing_learns_what_is_unknown(server, target):
    server.refusals = dict.fromkeys(["data", "trainer"], NO_RIGHT)
    server.forbidden = ["^GET (?!/version)", "^POST .*/localsubject"]
    found = run_cluster_checks(target)
    unknown = {check.name for check in found if check.status == "unknown"}
    assert unknown >= {
        *("namespace", "run's rights", "settings", "quota", "nodes", "retry rule", "zone"),
        *("MLflow plugin", "pod users", "artifacts", "pod, data", "pod, trainer"),
    }
    assert all(check.advice for check in found if check.status == "unknown")
    # Kubeflow's API answers by the same way, which was closed here
    assert [check.name for check in found if check.status == "error"] == ["Kubeflow"]


def test_without_its_namespace_only_the_cluster_is_looked_at(server, target):
    del server.objects[OF_RUNS]
    found = {check.name: check for check in run_cluster_checks(target)}
    assert found["namespace"].status == "error"
    assert "there is no namespace brainseg" in found["namespace"].found
    assert "nodes" in found
    assert not {"settings", "quota", "pod, data"} & set(found)


def test_a_slow_server_is_no_reason_to_wait_longer(server, target):
    server.latency_s = 0.4
    found = run_cluster_checks(target, limit_s=2)
    assert [check.name for check in found if check.status == "unknown"]
    assert not server.sent, "pods are left behind"


def test_the_command_tells_each_finding_and_fails_if_something_is_wrong(server):
    del server.objects[f"{OF_RUNS}/serviceaccounts/brainseg-run"]
    done = CliRunner().invoke(app, COMMAND)
    assert done.exit_code == 1
    assert "error    run's rights    there is no ServiceAccount brainseg-run\n" in done.stdout
    assert " -> kubectl apply -k with an overlay of manifests/" in done.stdout


def test_the_command_speaks_json_and_succeeds_if_all_is_well(server):
    done = CliRunner().invoke(app, [*COMMAND, "--json"])
    assert done.exit_code == 0, done.output
    assert {check["status"] for check in json.loads(done.stdout)} == {"ok"}


def test_options_of_a_cluster_want_one():
    with pytest.raises(UserError, match="add --cluster"):
        CliRunner().invoke(app, ["doctor", "--registry", "r.example"], catch_exceptions=False)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_no_pods(server, kubeconfig, ended_by):
    server.pods = dict.fromkeys(["data", "trainer"], waiting("ContainerCreating"))
    script = "from pipelines.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", script, *COMMAND])
    while len(server.sent) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(ended_by)
    assert process.wait(timeout=300) == 130
    assert not server.sent


def test_a_folder_is_no_store_of_a_cluster(server):
    found = {check.name: check for check in run_cluster_checks(target_of("test", store="/data"))}
    assert found["store"].status == "unknown"
    assert "--store s3://" in found["store"].advice
