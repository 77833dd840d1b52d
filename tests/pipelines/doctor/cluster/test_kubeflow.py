import pytest

from pipelines.doctor.cluster.kubeflow import Installation, check_api, container, find_installation
from tests.pipelines.doctor.cluster.api_server import (
    OF_KFP,
    PROXY,
    deployment,
    from_install_config,
    listed,
)
from tests.pipelines.doctor.cluster.conftest import target_of


def test_variables_by_value_and_from_config_maps(cluster):
    found = Installation(cluster, "kubeflow")
    made = deployment(
        "x",
        [
            {"name": "GIVEN", "value": "1"},
            from_install_config("ZONE", "cronScheduleTimezone"),
            from_install_config("OTHER", "no-such-key"),
        ],
    )
    assert found.variables(made, ["GIVEN", "ZONE", "OTHER", "UNSET"]) == {
        "GIVEN": "1",
        "ZONE": "UTC",
        "OTHER": "",
        "UNSET": "",
    }
    assert container(made)["name"] == "x"


def test_a_config_map_that_is_not_there_sets_nothing(cluster, server):
    del server.objects[f"{OF_KFP}/configmaps/pipeline-install-config"]
    made = deployment("x", [from_install_config("ZONE", "cronScheduleTimezone")])
    assert Installation(cluster, "kubeflow").variables(made, ["ZONE"]) == {"ZONE": ""}


def test_the_usual_namespace_goes_before_others(cluster, server):
    names = ["team", "kubeflow"]
    items = [{"metadata": {"name": "ml-pipeline", "namespace": name}} for name in names]
    server.objects["/apis/apps/v1/deployments"] = listed(*items)
    assert find_installation(cluster).namespace == "kubeflow"
    server.objects["/apis/apps/v1/deployments"] = listed(items[0])
    assert find_installation(cluster).namespace == "team"
    server.objects["/apis/apps/v1/deployments"] = listed()
    assert find_installation(cluster).namespace == "kubeflow"


def test_the_way_through_the_cluster(cluster, server, target):
    (check,) = check_api(cluster, target)
    assert (check.status, check.found) == (
        "ok",
        "the cluster's Kubeflow Pipelines: 2.17.0, for many users",
    )
    asked = [each for each in server.requests if "healthz" in each]
    assert set(asked) == {f"GET {PROXY}"}, "a token in the kubeconfig loses the way"


def test_one_user_has_runs_where_kubeflow_is(cluster, server):
    server.objects[PROXY]["multi_user"] = False
    found, place = check_api(cluster, target_of("test"))
    assert (found.status, place.status) == ("ok", "error")
    assert place.found == (
        "for one user, it runs pods in its own namespace kubeflow, not in brainseg"
    )
    assert "--namespace kubeflow" in place.advice
    assert "manifests/overlays/kind" in place.advice
    (found,) = check_api(cluster, target_of("test", namespace="kubeflow"))
    assert (found.status, found.found) == (
        "ok",
        "the cluster's Kubeflow Pipelines: 2.17.0, for one user",
    )


def test_where_kubeflow_is_may_be_unknown(cluster, server):
    server.objects[PROXY]["multi_user"] = False
    server.forbidden = ["deployments"]
    _, place = check_api(cluster, target_of("test"))
    assert place.status == "unknown"
    assert "own namespace kubeflow, not in brainseg, if it runs there" in place.found


def test_an_address(cluster, server):
    server.objects["/apis/v2beta1/healthz"] = {"tag_name": "2.17.3", "multi_user": True}
    (check,) = check_api(cluster, target_of("test", endpoint=server.url))
    assert (check.status, check.found) == (
        "ok",
        f"Kubeflow Pipelines at {server.url}: 2.17.3, for many users",
    )


@pytest.mark.parametrize(
    ("version", "status"), [("2.5.0", "warning"), ("1.8.22", "warning"), ("unknown", "ok")]
)
def test_an_old_version_is_told(cluster, server, target, version, status):
    server.objects[PROXY]["tag_name"] = version
    (check,) = check_api(cluster, target)
    assert check.status == status
    assert version in check.found


def test_no_kubeflow_in_the_cluster(cluster, server, target):
    del server.objects[PROXY]
    (check,) = check_api(cluster, target)
    assert check.status == "error"
    assert "404" in check.found
    assert "--endpoint" in check.advice


def test_an_address_where_nobody_answers(cluster):
    (check,) = check_api(cluster, target_of("test", endpoint="http://127.0.0.1:1"))
    assert check.status == "error"
    assert "--endpoint" in check.found
