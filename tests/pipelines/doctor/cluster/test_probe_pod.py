import pytest
from kubernetes.client import models

from pipelines.doctor.cluster.probe_pod import probe_pod
from pipelines.placement.profiles import load_profile
from tests.pipelines.doctor.cluster.conftest import target_of


def made(settings, **changes):
    values = {"image": "r.example/x:1", "account": "brainseg-run", "store": "s3://mri/x"}
    return probe_pod("probe-1", settings, limit_s=90, **{**values, **changes})


@pytest.fixture
def pod():
    return made(load_profile("cpu").steps["ingest"])


@pytest.fixture
def container(pod):
    (container,) = pod["spec"]["containers"]
    return container


def test_it_is_restricted(pod, container):
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"]) == (1000, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False


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


def test_it_has_a_place_for_each_folder_of_the_step(pod, container):
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounts) == {"/tmp", "/cache", "/etc/brainseg/ca"}
    assert [each["name"] for each in pod["spec"]["volumes"]] == list(mounts.values())


def test_it_ends_by_itself_and_is_not_tried_again(pod):
    assert pod["spec"]["activeDeadlineSeconds"] == 90
    assert pod["spec"]["restartPolicy"] == "Never"


def test_it_is_small_and_waits_in_no_queue_but_goes_where_the_step_goes(profile_of):
    target = profile_of(
        train={
            "queue": "team",
            "node_selector": {"disk": "fast"},
            "tolerations": [{"key": "gpu"}],
            "affinity": [
                {"match": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                {"match": [{"key": "new", "operator": "Exists"}], "weight": 3},
            ],
            "pull_secrets": ["registry"],
            "env": {"HTTPS_PROXY": "http://proxy"},
        }
    )
    pod = made(target.profile.steps["train"])
    spec = pod["spec"]
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    needed = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    condition = {"key": "zone", "operator": "In", "values": ["a"]}
    assert needed == {"nodeSelectorTerms": [{"matchExpressions": [condition]}]}
    assert {"name": "HTTPS_PROXY", "value": "http://proxy"} in spec["containers"][0]["env"]
    assert "kueue" not in str(pod)
    assert spec["containers"][0]["resources"]["requests"] == {"cpu": "100m", "memory": "256Mi"}


@pytest.mark.parametrize("profile", ["cpu", "gpu", "test"])
def test_every_field_is_one_of_kubernetes(profile):
    for step in load_profile(profile).steps.values():
        check_fields(made(step), "V1Pod")


def check_fields(value, kind):
    """Fails at a field that Kubernetes' model of this kind has not."""
    if kind.startswith("list["):
        for each in value:
            check_fields(each, kind[5:-1])
    elif model := getattr(models, kind, None):
        fields = {told: name for name, told in model.attribute_map.items()}
        for key, inner in value.items():
            check_fields(inner, model.openapi_types[fields[key]])


def test_names_of_images():
    probes = target_of("test").probes
    assert probes["data"] == ("registry.example/team/brainseg-data-python:0.2.0", "ingest")
    assert probes["trainer"] == ("registry.example/team/brainseg-trainer-python:0.2.0", "register")
