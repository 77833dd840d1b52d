import json

import pytest
import yaml

from components.train.group.objects import (
    KEPT_S,
    LEASE_S,
    PodSettings,
    group_objects,
    job,
    job_name,
    service,
)
from components.train.group.settings import GroupSettings, Task
from tests.components.train.group.pods import OWN_POD, OWNER, TASK_CONFIG

TRAINING = {
    "pipeline_run": "run-1",
    "label": "fold-1",
    "dataset_id": "ba3da5396014355f",
    "split_id": "0123456789abcdef",
    "recipe": {"seed": 1},
}
TASK = Task.model_validate({"store": "s3://bucket/prefix", "training": TRAINING})
PODS = PodSettings(pod=OWN_POD, task_config=TASK_CONFIG)


@pytest.fixture
def made():
    return job(GroupSettings(pods=2, processes=4), TASK, PODS)


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


def test_a_pod_has_the_steps_image_user_and_scratch_folders_and_nothing_of_argo(spec, container):
    assert container["image"] == "r.example/brainseg-trainer-python@sha256:0"
    assert container["securityContext"]["runAsUser"] == 1000
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert {each["name"] for each in spec["volumes"]} == {
        *("tmp", "cache", "shared-memory", "brainseg-ca")
    }
    assert [each["mountPath"] for each in container["volumeMounts"]] == [
        *("/tmp", "/cache", "/dev/shm", "/etc/brainseg/ca")
    ]


def test_a_pod_has_what_kfp_passes_on(spec, container):
    assert container["resources"] == TASK_CONFIG["resources"]
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == TASK_CONFIG["tolerations"]
    assert "affinity" not in spec
    assert TASK_CONFIG["env"][1] in container["env"]  # a Secret by its name, not its value


def test_a_label_of_the_steps_pod_becomes_its_value(container):
    """The group's pods have no label pipeline/runid, and would not know their run."""
    found = [each for each in container["env"] if each["name"] == "KFP_RUN_ID"]
    assert found == [{"name": "KFP_RUN_ID", "value": "run-1"}]


def test_pods_have_no_right_in_the_cluster_but_where_mlflow_asks_for_their_token(spec):
    assert spec["automountServiceAccountToken"] is False
    env = [*TASK_CONFIG["env"], {"name": "MLFLOW_TRACKING_AUTH", "value": "kubernetes"}]
    pods = PodSettings(pod=OWN_POD, task_config={**TASK_CONFIG, "env": env})
    made = job(GroupSettings(), TASK, pods)
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
    plain = job(settings, TASK, PODS)["spec"]["template"]
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
