import pytest

from pipelines.doctor.cluster.quota import check_quota
from tests.pipelines.doctor.cluster.api_server import OF_RUNS, listed
from tests.pipelines.doctor.cluster.conftest import target_of


@pytest.fixture
def quota(server):
    (quota,) = server.objects[f"{OF_RUNS}/resourcequotas"]["items"]
    return quota


def test_no_quota_is_no_limit(cluster, server, target):
    server.objects[f"{OF_RUNS}/resourcequotas"] = listed()
    (check,) = check_quota(cluster, target)
    assert (check.status, check.found[:4]) == ("ok", "none")


def test_a_quota_without_a_limit_range_refuses_argos_containers(cluster, server, target):
    server.objects[f"{OF_RUNS}/limitranges"] = listed()
    missing, room = check_quota(cluster, target)
    assert missing.status == "error"
    assert missing.found == (
        "brainseg refuses containers that name no resources, as Argo's, and no LimitRange sets "
        "their defaultRequest.cpu, defaultRequest.memory, default.cpu, default.memory"
    )
    assert "limitrange.yaml" in missing.advice
    assert room.status == "ok"


def test_a_quota_of_pods_alone_needs_no_limit_range(cluster, server, target, quota):
    quota["spec"]["hard"] = {"pods": "10"}
    server.objects[f"{OF_RUNS}/limitranges"] = listed()
    (check,) = check_quota(cluster, target)
    assert check.status == "ok"


def test_a_step_that_no_pod_can_ever_be_started_for(cluster, server, quota):
    quota["spec"]["hard"] |= {"limits.memory": "8Gi"}
    (check,) = check_quota(cluster, target_of("cpu"))
    assert check.status == "error"
    assert check.found == "brainseg allows less than train needs: limits.memory 16Gi, not 8Gi"
    assert "never started" in check.advice


def test_the_pods_of_a_group_are_counted_together(cluster, server, profile_of):
    target = profile_of(train={"pod_group": {"pods": 101}})
    (check,) = check_quota(cluster, target)
    assert check.status == "error"
    assert "train needs: limits.memory 404Gi, not 256Gi" in check.found
    assert "train needs: pods 101, not 100" in check.found


def test_a_quota_that_allows_no_gpu(cluster, server):
    (check,) = check_quota(cluster, target_of("gpu"))
    assert check.status == "error"
    assert "train needs: requests.nvidia.com/gpu 1, not 0" in check.found


def test_a_quota_that_is_used_up(cluster, server, target, quota):
    quota["status"]["used"] |= {"requests.memory": "127.5Gi", "pods": "100"}
    (check,) = check_quota(cluster, target)
    assert check.status == "warning"
    assert "aggregate needs: requests.memory 1Gi, not 0.5Gi" in check.found
    assert "needs: pods 1, not 0" in check.found
    assert "wait until others' pods have ended" in check.advice


def test_quotas_for_other_pods_are_left_out(cluster, server, target, quota):
    quota["spec"] |= {"scopes": ["BestEffort"], "hard": {"pods": "0"}}
    (check,) = check_quota(cluster, target)
    assert check.status == "ok"
