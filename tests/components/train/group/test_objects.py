import copy
import json

import pytest
import yaml

from components.train.group.objects import (
    KEPT_S,
    LEASE_S,
    PodSource,
    group_objects,
    job,
    job_name,
    service,
)
from components.train.group.settings import GroupSettings, Task
from tests.components.train.group.pods import FRAGMENT, OWN_POD, OWNER

TRAINING = {
    "pipeline_run": "run-1",
    "label": "fold-1",
    "dataset_id": "ba3da5396014355f",
    "split_id": "0123456789abcdef",
    "recipe": {"seed": 1},
}
TASK = Task.model_validate({"store": "s3://bucket/prefix", "training": TRAINING})
PODS = PodSource(own=OWN_POD, fragment=FRAGMENT)


@pytest.fixture
def made():
    return job(GroupSettings(pods=2, processes=4), TASK, PODS, OWNER)


@pytest.fixture
def spec(made):
    return made["spec"]["template"]["spec"]


@pytest.fixture
def container(spec):
    (container,) = spec["containers"]
    return container


def test_the_name_is_the_trainings_and_equal_in_every_attempt():
    again = Task.model_validate({"store": "s3://bucket/prefix", "training": TRAINING})
    assert again.name == TASK.name == f"brainseg-{TASK.training.digest}"
    other = {**TRAINING, "label": "fold-2"}
    assert Task.model_validate({"store": "s3://a/b", "training": other}).name != TASK.name


def test_a_pod_has_the_steps_image_and_user_and_nothing_of_argo(spec, container):
    assert container["image"] == "r.example/brainseg-trainer-python@sha256:0"
    assert container["securityContext"]["runAsUser"] == 1234  # KFP may force one on all pods
    assert spec["serviceAccountName"] == "brainseg-run"
    names = {each["name"] for each in container["env"]}
    assert names.isdisjoint({"ARGO_TEMPLATE", "SSL_CERT_FILE"})


def test_a_pod_has_the_settings_of_the_profile(made, spec, container):
    given = FRAGMENT["spec"]
    for field in ("nodeSelector", "tolerations", "imagePullSecrets", "volumes"):
        assert spec[field] == given[field]
    assert "affinity" not in spec
    for field in ("resources", "volumeMounts", "imagePullPolicy"):
        assert container[field] == given["containers"][0][field]
    secret = given["containers"][0]["env"][1]
    assert secret in container["env"]  # a Secret by its name, not its value
    metadata = made["spec"]["template"]["metadata"]
    assert metadata["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert metadata["labels"]["app.kubernetes.io/component"] == "pod-group"


def test_a_pod_is_restricted(container):
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_variables_of_kfps_plugins_and_proxies_are_handed_on(container):
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert values["MLFLOW_RUN_ID"] == "of-the-task"
    assert values["https_proxy"] == "http://proxy"


def test_the_run_is_a_value_and_no_label(container):
    """The group's pods have no label pipeline/runid, and would not know their run."""
    found = [each for each in container["env"] if each["name"] == "KFP_RUN_ID"]
    assert found == [{"name": "KFP_RUN_ID", "value": "run-1"}]


def test_pods_have_no_right_in_the_cluster_but_where_mlflow_asks_for_their_token(spec):
    assert spec["automountServiceAccountToken"] is False
    own = copy.deepcopy(OWN_POD)
    auth = {"name": "MLFLOW_TRACKING_AUTH", "value": "kubernetes"}
    own["spec"]["containers"][1]["env"].append(auth)
    made = job(GroupSettings(), TASK, PodSource(own=own, fragment=FRAGMENT), OWNER)
    assert made["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_pods_meet_at_the_first_ones_name(spec, container):
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert values["BRAINSEG_GROUP_MASTER"] == f"{TASK.name}-0.{TASK.name}:29500"
    assert (values["BRAINSEG_GROUP_PODS"], values["BRAINSEG_GROUP_PROCESSES"]) == ("2", "4")
    found = service(TASK, OWNER)
    assert spec["subdomain"] == found["metadata"]["name"]
    assert found["spec"]["publishNotReadyAddresses"]  # nobody is ready before all have met


def test_the_first_process_is_told_its_training(container):
    assert container["command"] == ["python", "-m", "components.train.group.worker"]
    assert Task.model_validate_json(container["args"][0]) == TASK


def test_nothing_outlives_its_step_by_ten_minutes(made, spec):
    assert made["spec"]["activeDeadlineSeconds"] == LEASE_S
    assert LEASE_S + spec["terminationGracePeriodSeconds"] + KEPT_S < 600


def test_a_mistake_fails_the_group_and_a_disruption_is_not_counted(made):
    mistake, ended, disrupted = made["spec"]["podFailurePolicy"]["rules"]
    assert (mistake["action"], mistake["onExitCodes"]["values"]) == ("FailJob", [78])
    assert (ended["action"], ended["onExitCodes"]["values"]) == ("Ignore", [143])
    assert disrupted["action"] == "Ignore"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize("backend", ["job", "trainjob"])
def test_objects_go_with_the_steps_pod_and_wait_in_a_queue(backend):
    objects = group_objects(GroupSettings(backend=backend, queue="gpus"), TASK, PODS, OWNER)
    assert all(made["metadata"]["ownerReferences"] == [OWNER] for made in objects)
    assert all(made["metadata"]["name"] == TASK.name for made in objects)
    assert objects[-1]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_a_trainjobs_pods_are_those_of_a_job():
    settings = GroupSettings(backend="trainjob", pods=2)
    runtime, train_job = group_objects(settings, TASK, PODS, OWNER)
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]
    plain = job(settings, TASK, PODS, OWNER)["spec"]["template"]
    assert pod == plain
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 2}
    assert train_job["spec"] == {"runtimeRef": {"kind": "TrainingRuntime", "name": TASK.name}}
    # JobSet's names: <JobSet>-<replicated job>-<its number>-<pod>.<JobSet>
    assert job_name(settings, TASK) == f"{TASK.name}-node-0"
    env = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert env["BRAINSEG_GROUP_MASTER"] == f"{TASK.name}-node-0-0.{TASK.name}:29500"


def test_objects_are_plain_data():
    objects = group_objects(GroupSettings(), TASK, PODS, OWNER)
    assert yaml.safe_load(json.dumps(objects)) == objects
