import re
import socket

import pytest

from components.shared.cluster import KubernetesError
from components.shared.errors import UserError
from pipelines.doctor.cluster.checks import run_cluster_checks
from pipelines.doctor.cluster.server import check_namespace, check_server
from tests.pipelines.doctor.cluster.api_server import OF_RUNS
from tests.pipelines.doctor.cluster.conftest import write_kubeconfig


def looked(cluster):
    return {check.name: check for check in check_server(cluster)}


def test_tells_the_version_the_place_and_who_asks(cluster, server):
    found = looked(cluster)
    assert found["Kubernetes"].found == f"v1.35.4 at {server.url}, as someone"
    assert {check.status for check in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("version", "status"),
    [("v1.30.9", "warning"), ("v1.31.0-eks-1", "ok"), ("v2.0.0", "ok"), ("main", "ok")],
)
def test_an_old_version_is_told(cluster, server, version, status):
    server.objects["/version"]["gitVersion"] = version
    assert looked(cluster)["Kubernetes"].status == status


def test_a_version_that_does_not_say_who_asks(cluster, server, monkeypatch):
    answer = server.answer
    monkeypatch.setattr(
        server,
        "answer",
        lambda method, *rest: (404, {}) if method == "POST" else answer(method, *rest),
    )
    server.objects["/version"]["gitVersion"] = "v1.27.3"
    assert looked(cluster)["Kubernetes"].status == "warning"


@pytest.mark.parametrize(
    ("ahead_s", "status", "expected"),
    [
        (30, "ok", "agree"),
        (-120, "warning", r"1[12]\d s behind this machine"),
        (1000, "error", r"(99|100)\d s ahead of this machine"),
    ],
)
def test_a_clock_that_is_off(cluster, server, ahead_s, status, expected):
    server.ahead_s = ahead_s
    check = looked(cluster)["clock"]
    assert check.status == status
    assert re.search(expected, check.found)
    assert bool(check.advice) == (status != "ok")


def test_a_token_that_has_expired(server, target):
    server.user = ""
    with pytest.raises(UserError, match=r"does not know who asks \(401\).*log in again"):
        run_cluster_checks(target)


def test_a_kubeconfig_without_a_token(server, target):
    server.user = "system:anonymous"
    with pytest.raises(UserError, match=r"does not know who asks \(401\).*log in again"):
        run_cluster_checks(target)


def test_a_server_that_is_away(target, kubeconfig):
    write_kubeconfig(kubeconfig, "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"127.0.0.1:1 cannot be asked: no answer .*VPN"):
        run_cluster_checks(target)


def test_a_server_that_never_answers(target, kubeconfig):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_kubeconfig(kubeconfig, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match="cannot be asked: no answer"):
            run_cluster_checks(target, limit_s=0.5)


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
