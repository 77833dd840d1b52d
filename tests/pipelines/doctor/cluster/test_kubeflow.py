from pipelines.doctor.cluster.kubeflow import Installation, container, find_installation
from tests.pipelines.doctor.cluster.api_server import (
    OF_KFP,
    deployment,
    from_install_config,
    listed,
)


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
