import json

import pytest
import yaml

from pipelines.doctor.cluster.installation import (
    check_artifacts,
    check_installation,
    check_retry_rule,
)
from pipelines.doctor.cluster.kubeflow import Installation
from tests.pipelines.doctor.cluster.api_server import (
    DEPLOYMENTS,
    OF_KFP,
    OF_RUNS,
    SPARING,
    deployment,
    encoded,
    named,
)
from tests.pipelines.doctor.cluster.conftest import target_of
from tests.test_layout import PROJECT

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


LAUNCHER = f"{OF_RUNS}/configmaps/kfp-launcher"
USUAL = f"{OF_RUNS}/secrets/mlpipeline-minio-artifact"
REFERENCE = {"secretName": "s3-key", "accessKeyKey": "id", "secretKeyKey": "key"}


@pytest.fixture
def artifacts_check(cluster, server, target):
    def check(**data):
        if data:
            server.objects[LAUNCHER] = named("kfp-launcher", data=data)
        return check_artifacts(Installation(cluster, "kubeflow"), target)

    return check


def providers(**each):
    return yaml.safe_dump(each)


def test_kfps_own_bucket_by_default(artifacts_check):
    check = artifacts_check()
    assert check.status == "ok"
    assert check.found.startswith("minio://mlpipeline/v2/artifacts; the key is in the Secret mlpip")


@pytest.mark.parametrize("keys", [None, ["accesskey"]])
def test_its_key_that_is_not_in_the_runs_namespace(artifacts_check, server, keys):
    if keys is None:
        del server.objects[USUAL]
    else:
        server.objects[USUAL] = named("x", data=encoded(**dict.fromkeys(keys, "x")))
    check = artifacts_check()
    assert check.status == "error"
    assert "mlpipeline-minio-artifact in brainseg" in check.found
    assert "copy it from the namespace kubeflow" in check.advice


def test_a_bucket_with_the_pods_own_role(artifacts_check, server):
    del server.objects[USUAL]
    check = artifacts_check(defaultPipelineRoot="s3://mri/kfp")
    assert (check.status, check.found) == ("ok", "s3://mri/kfp; pods use their own role")


@pytest.mark.parametrize("where", ["default", "Overrides"])
def test_a_key_of_ones_own(artifacts_check, server, where):
    of = {"credentials": {"fromEnv": False, "secretRef": REFERENCE}}
    s3 = {where: of if where == "default" else [of]}
    data = {"defaultPipelineRoot": "s3://mri/kfp", "providers": providers(s3=s3)}
    missing = artifacts_check(**data)
    assert missing.status == "error"
    assert "there is no Secret s3-key in brainseg" in missing.found
    server.objects[f"{OF_RUNS}/secrets/s3-key"] = named("s3-key", data=encoded(id="x"))
    assert "lacks key" in artifacts_check(**data).found
    server.objects[f"{OF_RUNS}/secrets/s3-key"]["data"] |= encoded(key="x")
    assert artifacts_check(**data).found == "s3://mri/kfp; the key is in the Secret s3-key"


CONTROLLER = f"{OF_KFP}/configmaps/workflow-controller-configmap"


def spec(**rule):
    return {"templateDefaults": {"retryStrategy": rule}}


@pytest.fixture
def retry_check(cluster, server, target):
    def check(defaults=None, patch=None, **data):
        if defaults is not None:
            data["workflowDefaults"] = yaml.safe_dump({"spec": defaults})
        server.objects[CONTROLLER]["data"] = data
        pod = server.objects[f"{DEPLOYMENTS}/ml-pipeline"]["spec"]["template"]["spec"]
        pod["containers"][0]["env"][0]["value"] = json.dumps(patch or {})
        return check_retry_rule(Installation(cluster, "kubeflow"), target)

    return check


def test_kfps_own_manifests_try_again_no_step_that_failed(retry_check):
    check = retry_check(spec(limit="2", retryPolicy="OnError"))
    assert check.status == "warning"
    assert check.found == "OnError: Argo retries pods that were deleted, and no step that failed"
    assert SPARING in check.advice


@pytest.mark.parametrize("defaults", [None, {}, spec(limit="2")])
def test_argos_own_rule_tries_again_mistakes_too(retry_check, defaults):
    check = retry_check(defaults)
    assert check.status == "warning"
    assert check.found.startswith("OnFailure: ")
    assert "mistakes too" in check.found


def test_the_documentation_has_the_same_expression():
    assert SPARING in (PROJECT / "docs/how-to/production.md").read_text()


def test_an_expression_without_a_rule_means_always(retry_check):
    check = retry_check(spec(expression=SPARING))
    assert (check.status, check.found[:7]) == ("ok", "Always:")


def test_an_expression_that_spares_no_mistakes(retry_check):
    check = retry_check(spec(retryPolicy="Always", expression="lastRetry.exitCode != '2'"))
    assert check.status == "warning"
    assert "lastRetry.exitCode != '2'" in check.found


def test_kfps_patch_goes_before_the_controllers_defaults(retry_check):
    patch = spec(retryPolicy="Always", expression=SPARING)
    assert retry_check(spec(retryPolicy="OnError"), patch).status == "ok"


def test_argos_settings_under_one_key(retry_check):
    rule = spec(retryPolicy="Always", expression=SPARING)
    text = yaml.safe_dump({"workflowDefaults": {"spec": rule}})
    assert retry_check(config=text).status == "ok"


def test_a_rule_that_is_not_known_is_told_as_it_is(retry_check):
    assert retry_check(spec(retryPolicy="Never")).found == "Never: Argo retries what it says"
