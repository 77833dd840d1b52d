import pytest

from pipelines.doctor.cluster.queues import check_queues, check_trainer

KUEUE = "/apis/kueue.x-k8s.io"
QUEUE = f"{KUEUE}/v1beta1/namespaces/brainseg/localqueues/team"


def group_of(name, *versions):
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "versions": found, "preferredVersion": found[0]}


@pytest.fixture
def queued(profile_of):
    return profile_of(train={"queue": "team"})


@pytest.fixture
def kueue(server):
    server.objects[KUEUE] = group_of("kueue.x-k8s.io", "v1beta1")


def test_without_a_queue_nothing_is_asked(cluster, server, target):
    assert list(check_queues(cluster, target)) == []
    assert not server.requests


def test_a_queue_in_a_cluster_without_kueue(cluster, server, queued):
    (check,) = check_queues(cluster, queued)
    assert (check.status, check.found) == ("error", "team: the cluster has no Kueue")


def test_a_queue_that_is_not_there(cluster, server, queued, kueue):
    (check,) = check_queues(cluster, queued)
    assert (check.status, check.found) == ("error", "there is no LocalQueue team")


@pytest.mark.parametrize(("active", "status"), [("True", "ok"), ("False", "error")])
def test_a_queue_that_is_there(cluster, server, queued, kueue, active, status):
    condition = {"type": "Active", "status": active, "message": "ClusterQueue doesn't exist"}
    server.objects[QUEUE] = {"status": {"conditions": [condition], "pendingWorkloads": 2}}
    (check,) = check_queues(cluster, queued)
    assert check.status == status
    assert ("2 are waiting" in check.found) == (status == "ok")
    assert ("ClusterQueue doesn't exist" in check.found) == (status == "error")


@pytest.mark.parametrize("backend", [None, "job"])
def test_trainer_is_asked_for_only_by_its_users(cluster, server, profile_of, backend):
    group = {"pod_group": {"backend": backend}} if backend else {}
    assert list(check_trainer(cluster, profile_of(train=group))) == []
    assert not server.requests


@pytest.mark.parametrize(
    ("versions", "status", "expected"),
    [
        (["v1alpha1"], "ok", "TrainJobs of trainer.kubeflow.org/v1alpha1"),
        (["v1"], "error", "has TrainJobs only of v1"),
        ([], "error", "knows no TrainJobs"),
    ],
)
def test_trainjobs_need_trainer(cluster, server, profile_of, versions, status, expected):
    target = profile_of(train={"pod_group": {"backend": "trainjob"}})
    name = "trainer.kubeflow.org"
    if versions:
        server.objects[f"/apis/{name}"] = group_of(name, *versions)
    (check,) = check_trainer(cluster, target)
    assert check.status == status
    assert expected in check.found
