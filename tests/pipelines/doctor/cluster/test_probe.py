import json
import logging
import time

import pytest
from kubernetes.client import models

from components.shared.cluster import KubernetesError, connect
from pipelines.doctor.cluster import probe
from pipelines.doctor.cluster.probe import check_pods, probe_pod
from pipelines.placement.pod import pod_fragment
from pipelines.placement.profiles import load_profile
from tests.pipelines.doctor.cluster.api_server import OF_RUNS, terminated, unschedulable, waiting
from tests.pipelines.doctor.cluster.conftest import target_of


@pytest.fixture
def probed(cluster, server, target):
    """What the pod of the data image finds if it gets this status."""

    def probe(status):
        server.pods["data"] = status
        found = {check.name: check for check in check_pods(cluster, target)}
        assert not server.sent, "pods are left behind"
        return found["pod, data"]

    return probe


def looks_at(kind, server):
    return sum(f"GET {OF_RUNS}/pods/brainseg-doctor-{kind}-" in each for each in server.requests)


@pytest.mark.parametrize(
    ("status", "expected", "advice"),
    [
        (waiting("ErrImagePull", "not found"), "the image brainseg: not found", "--registry"),
        (waiting("ImagePullBackOff", "403"), "the image brainseg: 403", "pull_secrets"),
        (waiting("InvalidImageName", "bad"), "the image brainseg: bad", "--registry"),
        (waiting("ErrImageNeverPull", "never"), "the image brainseg: never", "--digests"),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'),
            'its configuration: secret "x" not found',
            "create what is missing",
        ),
    ],
)
def test_a_pod_that_cannot_start_is_not_waited_for(probed, server, status, expected, advice):
    check = probed(status)
    assert looks_at("data", server) == 1
    assert (check.status, check.found) == ("error", f"it waits for {expected}")
    assert advice in check.advice


@pytest.mark.parametrize(
    ("refusal", "status", "advice"),
    [
        ("exceeded quota: brainseg, requested: pods=1, used: pods=5", "error", "raise the quota"),
        ('violates PodSecurity "restricted:v1.35": runAsNonRoot', "error", "no more than the"),
        ("error looking up service account", "error", "refused in the same way"),
        ('User "me" cannot create resource "pods"', "unknown", "have the right"),
    ],
)
def test_a_pod_that_is_refused(cluster, server, target, refusal, status, advice):
    server.refusals["data"] = refusal
    found = {check.name: check for check in check_pods(cluster, target)}
    assert found["pod, data"].status == status
    assert refusal in found["pod, data"].found
    assert advice in found["pod, data"].advice
    assert found["pod, trainer"].status == "ok"
    assert not server.sent


def test_a_pod_that_was_never_made_is_not_deleted(cluster, server, target, caplog):
    server.refusals = dict.fromkeys(["data", "trainer"], "exceeded quota: brainseg")
    server.forbidden = ["^DELETE"]
    list(check_pods(cluster, target))
    assert not caplog.text
    assert not [each for each in server.requests if each.startswith("DELETE")]


def test_a_pod_that_fails_tells_its_last_words(probed):
    check = probed(terminated("Failed", "No module named 'pipelines.doctor.pod'"))
    assert check.status == "error"
    assert check.found.endswith(
        "brainseg-data-python:0.2.0: No module named 'pipelines.doctor.pod'"
    )
    assert "images of this version" in check.advice


def test_a_pod_without_a_node(server, target, monkeypatch):
    monkeypatch.setattr(probe, "_EVERY_S", 0.05)
    server.pods["data"] = unschedulable("0/1 nodes are available: 1 Insufficient memory.")
    found = {check.name: check for check in check_pods(connect("brainseg", 3), target)}
    assert looks_at("data", server) > 1  # a node may still come
    assert looks_at("trainer", server) == 1
    assert found["pod, data"].status == "error"
    assert "a node with enough free memory: 0/1 nodes" in found["pod, data"].found
    assert "make room" in found["pod, data"].advice
    assert found["pod, trainer"].status == "ok"


def test_an_image_that_is_still_on_its_way(server, target, monkeypatch):
    monkeypatch.setattr(probe, "_EVERY_S", 0.05)
    server.pods["trainer"] = waiting("ContainerCreating")
    found = {check.name: check for check in check_pods(connect("brainseg", 3), target)}
    assert found["pod, trainer"].status == "unknown"
    assert "has not ended in this time" in found["pod, trainer"].found
    assert "try again" in found["pod, trainer"].advice


def test_what_the_pod_found_is_told_with_its_image(cluster, server, target):
    checks = [{"name": "store", "status": "error", "found": "no bucket", "advice": "make it"}]
    answer = json.dumps({"time": time.time(), "checks": checks})
    server.pods["data"] = terminated("Succeeded", answer)
    found = {check.name: check for check in check_pods(cluster, target)}
    assert vars(found["store, data"]) == {**checks[0], "name": "store, data"}
    assert found["store, trainer"].status == "ok"


def test_a_node_whose_clock_is_off(cluster, server, target):
    answer = json.dumps({"time": time.time() - 2000, "checks": []})
    server.pods["data"] = terminated("Succeeded", answer)
    found = {check.name: check for check in check_pods(cluster, target)}
    assert found["clock, data"].status == "error"
    assert "behind this machine" in found["clock, data"].found
    assert "clock, trainer" not in found


def test_pods_are_deleted_if_kubernetes_stops_answering(cluster, server, target):
    server.forbidden = ["^GET .*/pods/"]
    with pytest.raises(KubernetesError):
        list(check_pods(cluster, target))
    assert not server.sent


def test_a_pod_that_may_not_be_deleted_is_named(cluster, server, target, caplog):
    server.forbidden = ["^DELETE"]
    with caplog.at_level(logging.WARNING):
        list(check_pods(cluster, target))
    assert "kubectl -n brainseg delete pod brainseg-doctor-data-" in caplog.text
    assert len(server.sent) == 2


def made(settings, target=None):
    return probe_pod("probe-1", settings, "r.example/x:1", target or target_of("test"))


@pytest.fixture
def pod():
    return made(load_profile("cpu").steps["ingest"])


@pytest.fixture
def container(pod):
    (container,) = pod["spec"]["containers"]
    return container


def test_it_is_restricted(container):
    context = container["securityContext"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (context["runAsUser"], context["runAsNonRoot"]) == (1000, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False


def test_it_ends_by_itself_and_is_not_tried_again(pod):
    assert pod["spec"]["activeDeadlineSeconds"] == 90
    assert pod["spec"]["restartPolicy"] == "Never"


def test_it_is_small_and_waits_in_no_queue_but_is_else_like_the_steps_pod(profile_of):
    changes = {"queue": "team", "node_selector": {"disk": "fast"}, "pull_secrets": ["registry"]}
    settings = profile_of(train=changes).profile.steps["train"]
    pod, step = made(settings), pod_fragment(settings)
    assert "kueue" not in str(pod)
    (probe,), (container,) = pod["spec"].pop("containers"), step["spec"].pop("containers")
    assert step["spec"].items() <= pod["spec"].items()
    assert probe.pop("resources")["requests"] == {"cpu": "100m", "memory": "256Mi"}
    del container["resources"]
    assert container.items() <= probe.items()


def test_it_tries_the_store_only_if_pods_can_reach_it():
    settings = load_profile("cpu").steps["ingest"]
    for store, tried in (("s3://mri/x", "s3://mri/x"), ("folder", "")):
        (container,) = made(settings, target_of("test", store=store))["spec"]["containers"]
        assert container["command"][-1] == tried


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
        fields = {key: name for name, key in model.attribute_map.items()}
        for key, inner in value.items():
            check_fields(inner, model.openapi_types[fields[key]])


def test_names_of_images():
    probes = target_of("test").probes
    assert probes["data"] == ("registry.example/team/brainseg-data-python:0.2.0", "ingest")
    assert probes["trainer"] == ("registry.example/team/brainseg-trainer-python:0.2.0", "register")
