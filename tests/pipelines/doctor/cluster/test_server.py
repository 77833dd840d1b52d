import re

import pytest

from pipelines.doctor.cluster.server import check_server


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
    ("ahead_s", "status", "told"),
    [
        (30, "ok", "agree"),
        (-120, "warning", r"1[12]\d s behind this machine"),
        (1000, "error", r"(99|100)\d s ahead of this machine"),
    ],
)
def test_a_clock_that_is_off(cluster, server, ahead_s, status, told):
    server.ahead_s = ahead_s
    check = looked(cluster)["clock"]
    assert check.status == status
    assert re.search(told, check.found)
    assert bool(check.advice) == (status != "ok")
