import pytest

from components.shared.cluster import KubernetesError
from pipelines.doctor.cluster.namespace import check_namespace
from tests.pipelines.doctor.cluster.api_server import OF_RUNS


def test_a_namespace_that_is_being_deleted(cluster, server, target):
    server.objects[OF_RUNS]["status"]["phase"] = "Terminating"
    (check,) = check_namespace(cluster, target)
    assert (check.status, check.found) == ("error", "brainseg is being deleted")


@pytest.mark.parametrize("labels", [{}, {"pod-security.kubernetes.io/enforce": "baseline"}])
def test_a_namespace_that_enforces_less_than_runs_can_stand(cluster, server, target, labels):
    server.objects[OF_RUNS]["metadata"]["labels"] = labels
    (check,) = check_namespace(cluster, target)
    assert check.status == "warning"
    assert "kubectl label namespace brainseg" in check.advice


def test_one_that_may_not_be_seen(cluster, server, target):
    server.forbidden = ["namespaces/brainseg$"]
    with pytest.raises(KubernetesError):
        list(check_namespace(cluster, target))
