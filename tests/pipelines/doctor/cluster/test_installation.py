import json

import pytest

from pipelines.doctor.cluster.installation import check_installation
from tests.pipelines.doctor.cluster.api_server import DEPLOYMENTS, OF_KFP, OF_RUNS, deployment
from tests.pipelines.doctor.cluster.conftest import target_of

INSTALL = f"{OF_KFP}/configmaps/pipeline-install-config"
NAMES = ("retry rule", "zone", "MLflow plugin", "pod users", "artifacts")


@pytest.fixture
def looked(cluster, target):
    def look(target=target):
        return {check.name: check for check in check_installation(cluster, target)}

    return look


@pytest.fixture
def settings(server):
    return server.objects[INSTALL]["data"]


@pytest.fixture
def environment(server):
    """Sets variables of KFP's API server."""
    pod = server.objects[f"{DEPLOYMENTS}/ml-pipeline"]["spec"]["template"]["spec"]

    def set_variables(**values):
        pod["containers"][0]["env"] += [
            {"name": name, "value": value} for name, value in values.items()
        ]

    return set_variables


def test_one_that_suits_runs(looked):
    found = looked()
    assert tuple(found) == NAMES
    assert {check.status for check in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("forbidden", "unknown"),
    [
        ("workflow-controller-configmap", {"retry rule"}),
        ("deployments/ml-pipeline$", {"retry rule", "MLflow plugin", "pod users"}),
        ("pipeline-install-config", {"zone", "pod users"}),
        ("configmaps/kfp-config", {"MLflow plugin"}),
        ("configmaps/kfp-launcher", {"artifacts"}),
        ("secrets/mlpipeline", {"artifacts"}),
        ("namespaces/kubeflow", {"retry rule", "zone", "MLflow plugin", "pod users"}),
    ],
)
def test_what_may_not_be_seen_is_unknown_and_nothing_else(server, looked, forbidden, unknown):
    server.forbidden = [forbidden]
    found = looked()
    assert {name for name, check in found.items() if check.status == "unknown"} == unknown
    assert all("ask someone who may look" in found[name].advice for name in unknown)


def test_a_cluster_without_kubeflow_is_one_line(server, looked):
    for path in list(server.objects):
        if "kubeflow" in path:
            del server.objects[path]
    found = looked()
    assert list(found) == ["artifacts", "KFP settings"]
    assert found["KFP settings"].found == (
        "the namespace kubeflow lacks the objects of retry rule, zone, MLflow plugin, pod users"
    )


def test_one_in_another_namespace_is_found_by_its_label(server, looked):
    server.objects = json.loads(
        json.dumps(server.objects).replace("namespaces/kubeflow", "namespaces/kfp")
    )
    (item,) = server.objects["/apis/apps/v1/deployments"]["items"]
    item["metadata"]["namespace"] = "kfp"
    assert {check.status for check in looked().values()} == {"ok"}


def test_who_may_not_look_everywhere_looks_in_the_usual_namespace(server, looked):
    server.forbidden = ["v1/deployments$"]
    assert {check.status for check in looked().values()} == {"ok"}


@pytest.mark.parametrize(
    ("zone", "status"),
    [("UTC", "ok"), ("Europe/Berlin", "error"), ("", "unknown"), ("Local", "unknown")],
)
def test_the_zone_of_schedules(looked, settings, zone, status):
    settings["cronScheduleTimezone"] = zone
    check = looked()["zone"]
    assert check.status == status
    assert ("cronScheduleTimezone: UTC" in check.advice) == (status != "ok")


def test_a_zone_that_is_set_nowhere(server, looked):
    name = "ml-pipeline-scheduledworkflow"
    server.objects[f"{DEPLOYMENTS}/{name}"] = deployment(name, [])
    assert looked()["zone"].status == "unknown"


@pytest.mark.parametrize(
    "forced",
    [
        {"PIPELINE_RUN_AS_USER": "0"},
        {"DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT": "false"},
        {"DEFAULT_SECURITY_CONTEXT_RUN_AS_GROUP": "5", "PIPELINE_RUN_AS_USER": "0"},
    ],
)
def test_users_that_a_restricted_namespace_refuses(looked, environment, forced):
    environment(**forced)
    check = looked()["pod users"]
    assert check.status == "error"
    assert all(f"{name}={value}" in check.found for name, value in forced.items())
    assert "restricted namespaces refuse such pods" in check.advice


@pytest.mark.parametrize(("user", "status"), [("0", "error"), ("5000", "warning"), ("1000", "ok")])
def test_a_user_from_the_configuration_goes_before_the_profiles(looked, settings, user, status):
    settings["defaultSecurityContextRunAsUser"] = user
    check = looked()["pod users"]
    assert check.status == status
    assert f"DEFAULT_SECURITY_CONTEXT_RUN_AS_USER={user}" in check.found


def test_the_profiles_user_is_what_counts(looked, settings, profile_of):
    settings["defaultSecurityContextRunAsUser"] = "5000"
    assert looked(profile_of(all={"user": 5000}))["pod users"].status == "ok"
    assert looked(target_of("test"))["pod users"].advice == (
        "set user: 5000 in the profile, which now says 1000"
    )


def test_the_place_of_the_launchers_settings_is_the_runs_namespace(server, looked):
    root = {"defaultPipelineRoot": "s3://mri/kfp"}
    server.objects[f"{OF_RUNS}/configmaps/kfp-launcher"] = {"data": root}
    assert looked()["artifacts"].found.startswith("s3://mri/kfp;")
