import json

import pytest
import yaml

from pipelines.doctor.cluster.kubeflow import Installation
from pipelines.doctor.cluster.retry import check_retry_rule
from tests.pipelines.doctor.cluster.api_server import DEPLOYMENTS, OF_KFP, SPARING
from tests.test_layout import PROJECT

CONTROLLER = f"{OF_KFP}/configmaps/workflow-controller-configmap"


def spec(**rule):
    return {"templateDefaults": {"retryStrategy": rule}}


@pytest.fixture
def checked(cluster, server, target):
    def check(defaults=None, patch=None, **data):
        if defaults is not None:
            data["workflowDefaults"] = yaml.safe_dump({"spec": defaults})
        server.objects[CONTROLLER]["data"] = data
        pod = server.objects[f"{DEPLOYMENTS}/ml-pipeline"]["spec"]["template"]["spec"]
        pod["containers"][0]["env"][0]["value"] = json.dumps(patch or {})
        return check_retry_rule(Installation(cluster, "kubeflow"), target)

    return check


def test_kfps_own_manifests_try_again_no_step_that_failed(checked):
    check = checked(spec(limit="2", retryPolicy="OnError"))
    assert check.status == "warning"
    assert check.found == "OnError: Argo retries pods that were deleted, and no step that failed"
    assert SPARING in check.advice


@pytest.mark.parametrize("defaults", [None, {}, spec(limit="2")])
def test_argos_own_rule_tries_again_mistakes_too(checked, defaults):
    check = checked(defaults)
    assert check.status == "warning"
    assert check.found.startswith("OnFailure: ")
    assert "mistakes too" in check.found


def test_the_documentation_has_the_same_expression():
    assert SPARING in (PROJECT / "docs/how-to/production.md").read_text()


def test_an_expression_without_a_rule_means_always(checked):
    check = checked(spec(expression=SPARING))
    assert (check.status, check.found[:7]) == ("ok", "Always:")


def test_an_expression_that_spares_no_mistakes(checked):
    check = checked(spec(retryPolicy="Always", expression="lastRetry.exitCode != '2'"))
    assert check.status == "warning"
    assert "lastRetry.exitCode != '2'" in check.found


def test_kfps_patch_goes_before_the_controllers_defaults(checked):
    patch = spec(retryPolicy="Always", expression=SPARING)
    assert checked(spec(retryPolicy="OnError"), patch).status == "ok"


def test_argos_settings_under_one_key(checked):
    rule = spec(retryPolicy="Always", expression=SPARING)
    text = yaml.safe_dump({"workflowDefaults": {"spec": rule}})
    assert checked(config=text).status == "ok"


def test_a_rule_that_is_not_known_is_told_as_it_is(checked):
    assert checked(spec(retryPolicy="Never")).found == "Never: Argo retries what it says"
