import pytest
from kubernetes.client import ApiClient, Configuration

from components.shared.cluster import Cluster
from components.shared.errors import OutageError, UserError
from components.train.group.cluster import GroupCluster

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "ownerReferences": []}}
TRAIN_JOB = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {"name": "a"},
}


def test_an_object_is_made_once(cluster):
    assert cluster.get(JOB) is None
    assert cluster.create(JOB)["metadata"]["uid"]
    assert cluster.create(JOB) is None
    cluster.patch(
        JOB, [{"op": "add", "path": "/metadata/ownerReferences/-", "value": {"uid": "b"}}]
    )
    assert cluster.get(JOB)["metadata"]["ownerReferences"] == [{"uid": "b"}]


def test_what_is_gone_stays_gone(cluster):
    cluster.delete(JOB)
    cluster.patch(JOB, [])
    assert cluster.get(JOB) is None
    assert cluster.log("no-such-pod") == []


FORBIDDEN = (
    'jobs.batch is forbidden: User "system:serviceaccount:brainseg:brainseg-run" cannot create '
    'resource "jobs" in API group "batch" in the namespace "brainseg"'
)


@pytest.mark.parametrize(
    ("made", "status", "said", "expected"),
    [
        (JOB, 403, FORBIDDEN, "the Role of this ServiceAccount"),
        (JOB, 403, 'jobs.batch "a" is forbidden: exceeded quota: brainseg', "have it raised"),
        (JOB, 422, "Job is invalid: spec.completions: must be positive", "spec.completions"),
        (TRAIN_JOB, 404, "the server could not find the requested resource", "not installed"),
    ],
)
def test_a_refusal_says_what_to_do(cluster, api, made, status, said, expected):
    api.refusals["create", f"{made['kind'].lower()}s"] = (status, said)
    with pytest.raises(UserError, match=expected) as refusal:
        cluster.create(made)
    assert said in str(refusal.value)
    assert not isinstance(refusal.value, OutageError)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_api_is_no_mistake(cluster, api, status):
    api.refusals["get", "jobs"] = (status, "etcd is away")
    with pytest.raises(OutageError, match="etcd is away"):
        cluster.get(JOB)


def test_a_trainer_that_has_not_seen_the_runtime_yet_is_no_mistake(cluster, api):
    said = "specified trainingRuntime must be created before the TrainJob is created"
    api.refusals["create", "trainjobs"] = (403, f'admission webhook "x" denied the request: {said}')
    with pytest.raises(OutageError, match=said):
        cluster.create(TRAIN_JOB)


def test_an_api_that_is_away_is_no_mistake():
    configuration = Configuration(host="http://127.0.0.1:9")  # nobody listens there
    configuration.retries = False
    connection = Cluster(ApiClient(configuration), "brainseg")
    with pytest.raises(OutageError, match="does not answer"):
        GroupCluster(connection, "a").get(JOB)


def test_outside_of_a_pod_there_is_no_group(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match="on one machine train without"):
        GroupCluster.inside()
