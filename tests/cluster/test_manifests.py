"""The overlay `test` on a real cluster: it answers, keeps what it has, and refuses what it must."""

import json
import shutil
import uuid

import pytest
import yaml

from tests.cluster.conftest import DATABASE_FOLDER, MANIFESTS, Kubectl, pod
from tests.waiting import until

pytestmark = pytest.mark.cluster

MLFLOW = "http://mlflow.brainseg:5000"
BUILDS = ["base", "overlays/test", "overlays/kind", "overlays/aws", "overlays/gpu", "schedules"]
RUNS = "system:serviceaccount:brainseg:brainseg-run"

STATUS = """
import sys, requests
url, host, *who = sys.argv[1:]
answer = requests.get(url, headers={"Host": host} if host else {}, auth=tuple(who) or None)
print(answer.status_code, answer.text[:200])
"""
LOG = """
import mlflow, sys
mlflow.set_experiment("survival")
with mlflow.start_run(run_name=sys.argv[1]) as run:
    mlflow.log_metric("dice", 0.5)
    mlflow.log_text("what was written", "note.txt")
"""
READ = """
import mlflow, sys
for run in mlflow.search_runs(experiment_names=["survival"], output_format="list"):
    if run.info.run_name == sys.argv[1]:
        note = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt")
        print(run.data.metrics["dice"], note)
"""
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
ADMIN = ("admin", "only-for-tests")


@pytest.fixture
def repaired(deployed):
    """For tests that break the overlay: it is whole again at their end."""
    yield deployed
    deployed.apply_overlay()


@pytest.fixture(scope="module")
def other_namespace(kubectl):
    """A fresh restricted namespace: what is there already would hide what a new user gets."""
    name = f"brainseg-{uuid.uuid4().hex[:8]}"
    namespace = yaml.safe_load((MANIFESTS / "base" / "namespace.yaml").read_text())
    namespace["metadata"]["name"] = name
    kubectl("apply", "-f", "-", text=json.dumps(namespace))
    yield Kubectl(name)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("build", BUILDS)
def test_the_api_server_takes_an_overlay_without_a_warning(other_namespace, build):
    text = other_namespace("kustomize", str(MANIFESTS / build))
    documents = [
        moved(each, other_namespace.namespace)
        for each in yaml.safe_load_all(text)
        if each["kind"] != "Namespace"
    ]
    said = other_namespace(
        *("apply", "--dry-run=server", "-f", "-"), text=yaml.safe_dump_all(documents), check=False
    )
    assert "arning" not in said
    assert "rror" not in said
    assert said.count("(server dry run)") == len(documents)


def test_mlflow_answers_whom_it_knows(step):
    assert step(STATUS, MLFLOW + SEARCH, "").startswith("401")
    assert step(STATUS, MLFLOW + SEARCH, "", "admin", "wrong").startswith("401")
    assert step(STATUS, MLFLOW + SEARCH, "", *ADMIN).startswith("200")


@pytest.mark.parametrize("host", ["mlflow", "mlflow.brainseg.svc.cluster.local"])
def test_mlflow_answers_by_every_name_of_its_service(step, host):
    assert step(STATUS, f"http://{host}:5000{SEARCH}", "", *ADMIN).startswith("200")


def test_mlflow_answers_by_no_other_name(step):
    said = step(STATUS, MLFLOW + SEARCH, "evil.example:5000", *ADMIN)
    assert said.startswith("403 Invalid Host header")


def test_a_run_and_its_files_survive_deleted_pods(deployed, step):
    name = uuid.uuid4().hex
    step(LOG, name)
    deployed("delete", "pods", "-l", "app.kubernetes.io/name in (mlflow, postgres)")
    deployed.wait_for_rollouts()
    assert step(READ, name) == "0.5 what was written\n"


def test_a_backup_brings_runs_users_and_files_back_into_an_empty_volume(repaired, step):
    name, kubectl = uuid.uuid4().hex, repaired
    step(LOG, name)
    run_job(kubectl, "brainseg-backup")
    lose_the_volume(kubectl)
    kubectl.apply_overlay()
    assert step(READ, name) == ""
    kubectl("scale", "deployment/mlflow", "--replicas=0")
    run_job(kubectl, "brainseg-restore")
    kubectl("scale", "deployment/mlflow", "--replicas=1")
    kubectl.wait_for_rollouts()
    assert step(READ, name) == "0.5 what was written\n"


def test_servers_that_start_together_do_not_break_each_others_tables(repaired, step):
    kubectl = repaired
    lose_the_volume(kubectl)
    kubectl("scale", "deployment/mlflow", "--replicas=3")
    kubectl("scale", "statefulset/postgres", "--replicas=1")
    kubectl("apply", "-f", str(MANIFESTS / "overlays" / "test" / "persistentvolume.yaml"))
    kubectl.wait_for_rollouts()
    pods = kubectl.get("pods", "-l", "app.kubernetes.io/name=mlflow")["items"]
    restarts = [
        status["restartCount"]
        for each in pods
        for kind in ("initContainerStatuses", "containerStatuses")
        for status in each["status"][kind]
    ]
    assert restarts == [0] * 6


def test_a_database_that_knows_another_password_is_one_message(repaired):
    kubectl = repaired
    patch = json.dumps({"stringData": {"password": "changed-afterwards"}})
    kubectl("patch", "secret", "brainseg-postgres", "--patch", patch)
    kubectl("rollout", "restart", "deployment/mlflow")
    message = until(lambda: failure_of_mlflow(kubectl), "failed migration")
    assert message.startswith("brainseg error: ")
    assert "password authentication failed" in message
    assert "Secret brainseg-postgres" in message
    assert "Traceback" not in message


def test_a_secret_that_is_missing_is_named(repaired):
    kubectl = repaired
    kubectl("delete", "secret", "brainseg-mlflow")
    kubectl("rollout", "restart", "deployment/mlflow")
    message = until(lambda: waiting_mlflow(kubectl), "waiting server")
    assert message == 'secret "brainseg-mlflow" not found'


def test_a_pod_of_root_is_refused(deployed):
    rooted = pod("root")
    rooted["spec"]["securityContext"] |= {"runAsUser": 0, "runAsNonRoot": False}
    said = deployed("apply", "-f", "-", text=json.dumps(rooted), check=False)
    assert 'violates PodSecurity "restricted:v1.35"' in said
    assert "runAsNonRoot != true" in said


def test_a_pod_beyond_the_quota_is_refused_with_what_is_left(deployed):
    greedy = pod("greedy")
    greedy["spec"]["containers"][0]["resources"]["requests"] = {"memory": "100Gi"}
    greedy["spec"]["containers"][0]["resources"]["limits"] = {"memory": "100Gi"}
    said = deployed("apply", "-f", "-", text=json.dumps(greedy), check=False)
    assert "exceeded quota: brainseg" in said
    assert "limited: limits.memory=32Gi,requests.memory=16Gi" in said


def test_a_pod_that_wants_a_gpu_is_refused_where_there_is_none(deployed):
    wanting = pod("gpu")
    wanting["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
    said = deployed("apply", "-f", "-", text=json.dumps(wanting), check=False)
    assert "exceeded quota: brainseg" in said
    assert "limited: requests.nvidia.com/gpu=0" in said


def test_a_container_that_names_no_resources_is_given_some(deployed):
    # as those of KFP's driver and Argo's executor
    said = deployed(
        *("apply", "--dry-run=server", "--output=json", "-f", "-"), text=json.dumps(pod("bare"))
    )
    assert json.loads(said)["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "512Mi"},
        "requests": {"cpu": "50m", "memory": "64Mi"},
    }


@pytest.mark.parametrize(
    ("allowed", "verb", "group", "resource", "name"),
    [
        (True, "get", "", "configmaps", "kfp-launcher"),
        (True, "get", "", "secrets", "mlpipeline-minio-artifact"),
        (True, "patch", "argoproj.io", "workflowtaskresults", ""),
        (True, "create", "batch", "jobs", ""),
        (True, "create", "trainer.kubeflow.org", "trainjobs", ""),
        (True, "get", "", "pods/log", ""),
        (False, "get", "", "secrets", "brainseg-store"),
        (False, "list", "", "secrets", ""),
        (False, "delete", "argoproj.io", "workflows", ""),
        (False, "create", "", "pods", ""),
        (False, "create", "", "pods/exec", ""),
        (False, "delete", "", "pods", ""),
        (False, "patch", "apps", "deployments", ""),
        (False, "create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ],
)
def test_runs_may_do_what_they_need_and_no_more(deployed, allowed, verb, group, resource, name):
    # `kubectl auth can-i` forgets the group of a type that is not installed
    resource, _, subresource = resource.partition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": RUNS,
            "resourceAttributes": {
                "namespace": deployed.namespace,
                "verb": verb,
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "name": name,
            },
        },
    }
    said = deployed("create", "--output=json", "-f", "-", text=json.dumps(review))
    assert json.loads(said)["status"]["allowed"] is allowed


def run_job(kubectl, cronjob):
    """Starts a Job of a CronJob's form and waits for its end."""
    name = f"{cronjob}-{uuid.uuid4().hex[:6]}"
    kubectl("create", "job", name, f"--from=cronjob/{cronjob}")

    def ended():
        status = kubectl.get("job", name)["status"]
        return status.get("succeeded") or any(
            each["type"] == "Failed" for each in status.get("conditions", [])
        )

    until(ended, f"end of {name}")
    log = kubectl("logs", f"job/{name}", "--all-containers", check=False)
    assert kubectl.get("job", name)["status"].get("succeeded"), log
    kubectl("delete", "job", name)


def lose_the_volume(kubectl):
    """What a deleted claim or a broken disk leaves: servers without a database."""
    for workload in ("deployment/mlflow", "statefulset/postgres"):
        kubectl("scale", workload, "--replicas=0")
    selector = "app.kubernetes.io/name in (mlflow, postgres)"
    kubectl("wait", "pods", "-l", selector, "--for=delete", "--timeout=90s")
    kubectl("delete", "pvc", "data-postgres-0")
    kubectl("delete", "pv", "brainseg-test-postgres")
    shutil.rmtree(DATABASE_FOLDER)
    DATABASE_FOLDER.mkdir()


def failure_of_mlflow(kubectl):
    """The last words of a failed container of MLflow's pods, or an empty text."""
    return first_state(kubectl, "initContainerStatuses", "terminated", "Error")


def waiting_mlflow(kubectl):
    return first_state(kubectl, "containerStatuses", "waiting", "CreateContainerConfigError")


def first_state(kubectl, kind, state, reason):
    pods = kubectl.get("pods", "-l", "app.kubernetes.io/name=mlflow")["items"]
    for each in pods:
        for status in each["status"].get(kind, []):
            for moment in ("state", "lastState"):
                found = status.get(moment, {}).get(state, {})
                if found.get("reason") == reason:
                    return found["message"]
    return ""


def moved(document, namespace):
    """The same object in another namespace."""
    if document["kind"] not in ("PersistentVolume", "StorageClass"):
        document["metadata"]["namespace"] = namespace
    for subject in document.get("subjects", []):
        subject["namespace"] = namespace
    return document
