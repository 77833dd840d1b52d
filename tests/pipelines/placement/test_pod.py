import pytest

from pipelines.placement.pod import kfp_container, pod_fragment
from pipelines.placement.profiles import PodSettings, load_profile

FULL = {
    "cpu": {"request": 1, "limit": 2},
    "gpu": {"type": "amd.com/gpu", "count": 2},
    "node_selector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
    "affinity": [
        {"match": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
        {"match": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 5},
    ],
    "queue": "mri",
    "labels": {"team": "a"},
    "annotations": {"note": "b"},
    "env": {"OMP_NUM_THREADS": "2"},
    "config": [{"name": "settings", "env": {"A": "a"}}],
    "secrets": [{"name": "secret", "env": {"B": "b"}, "optional": True}],
    "files": [{"name": "ca", "path": "/etc/ca"}],
    "pull_policy": "Always",
    "pull_secrets": ["registry"],
    "scratch": {"tmp": "1Gi", "cache": "2Gi", "shared_memory": "3Gi"},
    "timeout_s": 100,
    "user": 1234,
    "group": 99,
}


@pytest.fixture
def fragment():
    return pod_fragment(load_profile("cpu").steps["train"])


@pytest.fixture
def container(fragment):
    (container,) = fragment["spec"]["containers"]
    return container


def test_it_has_the_environment_of_the_step_by_reference(container):
    variables = {each["name"]: each.get("valueFrom") for each in container["env"]}
    assert variables["BRAINSEG_MLFLOW_TRACKING_URI"]["configMapKeyRef"] == {
        "name": "brainseg-settings",
        "key": "MLFLOW_TRACKING_URI",
        "optional": False,
    }
    assert variables["BRAINSEG_AWS_SECRET_ACCESS_KEY"]["secretKeyRef"] == {
        "name": "brainseg-store",
        "key": "AWS_SECRET_ACCESS_KEY",
        "optional": True,
    }


def test_it_has_a_place_for_each_folder_of_the_step(fragment, container):
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounts) == {"/tmp", "/cache", "/dev/shm", "/etc/brainseg/ca"}
    assert [each["name"] for each in fragment["spec"]["volumes"]] == list(mounts.values())


def test_every_setting_of_a_pod_has_its_field():
    memory = {"request": "1Gi", "limit": "4Gi"}
    pod = pod_fragment(PodSettings.model_validate({**FULL, "memory": memory}))
    spec = pod["spec"]
    assert pod["metadata"] == {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == FULL["tolerations"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    affinity = spec["affinity"]["nodeAffinity"]
    zone = {"key": "zone", "operator": "In", "values": ["a", "b"]}
    assert affinity["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [{"matchExpressions": [zone]}]
    }
    spot = {"key": "spot", "operator": "DoesNotExist"}
    assert affinity["preferredDuringSchedulingIgnoredDuringExecution"] == [
        {"weight": 5, "preference": {"matchExpressions": [spot]}}
    ]
    (container,) = spec["containers"]
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "4Gi", "amd.com/gpu": "2"},
    }
    assert container["env"][0] == {"name": "OMP_NUM_THREADS", "value": "2"}
    context = container["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (1234, 99)
    folders = {each["name"]: each.get("emptyDir") for each in spec["volumes"]}
    assert folders == {
        "tmp": {"sizeLimit": "1Gi"},
        "cache": {"sizeLimit": "2Gi"},
        "shared-memory": {"medium": "Memory", "sizeLimit": "3Gi"},
        "files-0": None,
    }


def test_a_pod_without_resources_leaves_them_to_the_namespace(fragment, container):
    del container["resources"]
    assert kfp_container(fragment) == {}


def test_a_container_is_restricted(container):
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
