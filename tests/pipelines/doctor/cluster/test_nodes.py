import pytest

from pipelines.doctor.cluster.nodes import check_nodes
from tests.pipelines.doctor.cluster.api_server import listed, node
from tests.pipelines.doctor.cluster.conftest import target_of

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@pytest.fixture
def found(cluster, server):
    def look(target, *nodes):
        if nodes:
            server.objects["/api/v1/nodes"] = listed(*nodes)
        return list(check_nodes(cluster, target))

    return look


def gpu_node(**spec):
    made = node("gpu", **{"nvidia.com/gpu": "1"})
    made["spec"] = spec
    return made


def test_a_node_for_every_step(found, target):
    (check,) = found(target)
    assert (check.status, check.found) == ("ok", "1 of 1 ready, one for every step")


def test_a_gpu_profile_without_gpus(found):
    (check,) = found(target_of("gpu"))
    assert (check.status, check.found) == ("error", "train: no node has nvidia.com/gpu 1")
    assert "--profile cpu" in check.advice


def test_the_gpu_profile_stands_the_taint_of_gpu_nodes(found):
    (check,) = found(target_of("gpu"), node(), gpu_node(taints=[TAINT]))
    assert check.status == "ok"


def test_another_taint_is_named(found):
    taint = {"key": "team", "value": "other", "effect": "NoExecute"}
    (check,) = found(target_of("gpu"), node(), gpu_node(taints=[TAINT, taint]))
    assert check.found == "train: no such node takes it: taint team=other:NoExecute"
    assert "tolerations" in check.advice


def test_a_taint_that_is_only_a_preference_is_no_hindrance(found):
    taint = {"key": "team", "effect": "PreferNoSchedule"}
    (check,) = found(target_of("gpu"), node(), gpu_node(taints=[taint]))
    assert check.status == "ok"


@pytest.mark.parametrize("count", ["0", "1"])
def test_more_gpus_than_any_node_has(found, profile_of, count):
    target = profile_of(train={"gpu": {"type": "amd.com/gpu", "count": 2}})
    (check,) = found(target, node("gpu", **{"amd.com/gpu": count}))
    assert check.found == "train: no node has amd.com/gpu 2"


@pytest.mark.parametrize("change", [{"unschedulable": True}, None])
def test_nodes_that_take_nothing_now_do_not_count(found, target, change):
    busy = node()
    if change:
        busy["spec"] |= change
    else:
        busy["status"]["conditions"][1]["status"] = "False"
    (check,) = found(target, busy)
    assert check.status == "error"
    assert check.found == f"{', '.join(target.profile.steps)}: no node has cpu 100m"


def test_more_memory_than_any_node_has(found, profile_of):
    target = profile_of(train={"memory": {"request": "100Gi", "limit": "100Gi"}})
    (check,) = found(target)
    assert check.found == "train: no node has memory 100Gi"


def test_labels_that_no_node_has(found, profile_of):
    target = profile_of(all={"node_selector": {"disk": "fast"}})
    (check,) = found(target)
    assert check.found.endswith("no such node has the labels that the profile asks for")
    labelled = node()
    labelled["metadata"]["labels"]["disk"] = "fast"
    (check,) = found(target, labelled)
    assert check.status == "ok"


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["a100", "h100"], True),
        ("In", ["l4"], False),
        ("NotIn", ["l4"], True),
        ("NotIn", ["h100"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["5"], False),
    ],
)
def test_conditions_on_labels(found, profile_of, operator, values, fits):
    condition = {"key": "gpu", "operator": operator, "values": values}
    target = profile_of(train={"affinity": [{"match": [condition]}]})
    labelled = node()
    labelled["metadata"]["labels"]["gpu"] = "h100"
    (check,) = found(target, labelled)
    assert (check.status == "ok") == fits


@pytest.mark.parametrize(("operator", "fits"), [("Gt", True), ("Lt", False)])
def test_conditions_on_numbers(found, profile_of, operator, fits):
    condition = {"key": "cores", "operator": operator, "values": ["7"]}
    target = profile_of(train={"affinity": [{"match": [condition]}]})
    labelled = node()
    labelled["metadata"]["labels"]["cores"] = "16"
    (check,) = found(target, labelled)
    assert (check.status == "ok") == fits


def test_one_of_several_needed_terms_is_enough_and_preferences_are_none(found, profile_of):
    other = {"match": [{"key": "gone", "operator": "Exists"}]}
    here = {"match": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
    (check,) = found(profile_of(train={"affinity": [other, here, {**other, "weight": 5}]}))
    assert check.status == "ok"
    (check,) = found(profile_of(train={"affinity": [other]}))
    assert check.status == "error"
