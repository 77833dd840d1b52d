import json

import pytest
import yaml

from pipelines.doctor.cluster.kubeflow import Installation
from pipelines.doctor.cluster.plugin import RIGHTS, check_plugin
from tests.pipelines.doctor.cluster.api_server import DEPLOYMENTS, OF_KFP, OF_RUNS
from tests.pipelines.doctor.cluster.test_rights import NOT_OF_EVERY_RUN, ROLE

CONFIG = f"{OF_KFP}/configmaps/kfp-config"


@pytest.fixture
def pod(server):
    return server.objects[f"{DEPLOYMENTS}/ml-pipeline"]["spec"]["template"]["spec"]


@pytest.fixture
def checked(cluster, server, target):
    def check(config=None):
        if config is not None:
            server.objects[CONFIG]["data"] = {"config.json": json.dumps(config)}
        return check_plugin(Installation(cluster, "kubeflow"), target)

    return check


def plugin(endpoint="http://mlflow.brainseg:5000", **settings):
    return {"plugins": {"mlflow": {"endpoint": endpoint, "settings": settings}}}


def test_the_images_own_configuration_names_a_server_that_few_have(checked, pod):
    del pod["containers"][0]["volumeMounts"]
    check = checked()
    assert check.status == "warning"
    assert "ghcr.io/kubeflow/ml-pipeline:2.17.0" in check.found
    assert "mlflow.opendatahub.svc" in check.found
    assert "mount a config.json" in check.advice


@pytest.mark.parametrize("config", [{}, {"plugins": {}}, {"plugins": None}])
def test_off(checked, config):
    check = checked(config)
    assert (check.status, check.found) == ("ok", "it is off: steps create their own runs in MLflow")


def test_on_with_its_defaults(checked):
    assert checked(plugin()).found == (
        "it is on: http://mlflow.brainseg:5000, authentication kubernetes, tasks are given "
        "KFP_MLFLOW_CONFIG alone"
    )


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [("http://mlflow.brainseg:5000/", "ok"), ("http://mlflow.brainseg.svc:5000", "warning")],
)
def test_on_at_the_pods_own_address_or_another(checked, endpoint, status):
    check = checked(plugin(endpoint))
    assert check.status == status
    assert ("own address is http://mlflow.brainseg:5000" in check.found) == (status == "warning")
    assert ("two runs" in check.advice) == (status == "warning")


def test_on_where_pods_have_no_address_of_their_own(checked, server):
    del server.objects[f"{OF_RUNS}/configmaps/brainseg-settings"]["data"]["MLFLOW_TRACKING_URI"]
    assert checked(plugin("https://mlflow.example")).status == "ok"


@pytest.mark.parametrize("resource", ["experiments", "registeredmodels"])
def test_on_for_an_account_without_the_rights(checked, server, resource):
    server.denied = {f"brainseg-run create {resource}.mlflow.kubeflow.org"}
    check = checked(plugin())
    assert check.status == "error"
    assert f"brainseg-run may not create {resource}.mlflow.kubeflow.org" in check.found
    assert checked(plugin(authType="bearer")).status == "ok"


def test_what_the_plugin_needs_is_what_the_role_of_runs_gives():
    given = {
        (group, resource, verb)
        for rule in yaml.safe_load(ROLE.read_text())["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if group in NOT_OF_EVERY_RUN
    }
    asked = {(each.group, each.resource, verb) for each in RIGHTS for verb in each.verbs.split()}
    assert asked == given


def test_on_with_variables_for_tasks(checked):
    check = checked(plugin(authType="bearer", injectUserEnvVars=True))
    assert "authentication bearer, tasks are given MLFLOW_* and KFP_MLFLOW_CONFIG" in check.found


def test_a_folder_that_is_mounted_as_a_whole(checked, pod):
    pod["containers"][0]["volumeMounts"] = [{"name": "config", "mountPath": "/config/"}]
    assert checked({}).found.startswith("it is off")


def test_mounts_of_other_things_say_nothing(checked, pod):
    pod["containers"][0]["volumeMounts"] = [
        {"name": "config", "mountPath": "/etc/mlflow-tracking-ca"},
        {"name": "gone", "mountPath": "/config"},
    ]
    assert checked().status == "warning"


@pytest.mark.parametrize("many_users", [True, False])
def test_settings_of_the_namespace_hold_where_there_are_many_users(
    checked, server, pod, many_users
):
    pod["containers"][0]["env"].append({"name": "MULTIUSER", "value": str(many_users).lower()})
    own = {"settings": {"injectUserEnvVars": True}}
    launcher = {"data": {"plugins.mlflow": json.dumps(own)}}
    server.objects[f"{OF_RUNS}/configmaps/kfp-launcher"] = launcher
    assert ("MLFLOW_*" in checked(plugin()).found) == many_users
    config = plugin()
    config["plugins"]["mlflow"]["namespaces"] = {"brainseg": {"settings": {"authType": "none"}}}
    assert ("authentication none" in checked(config).found) == many_users


def test_a_namespace_without_settings_of_its_own(checked, pod):
    pod["containers"][0]["env"].append({"name": "MULTIUSER", "value": "true"})
    assert "authentication kubernetes" in checked(plugin()).found
