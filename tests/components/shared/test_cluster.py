import json
import sys

import pytest
import yaml

from components.shared import cluster as connection
from components.shared.cluster import KubernetesError, connect, login
from components.shared.errors import UserError
from tests.pipelines.doctor.cluster.conftest import *  # noqa: F403  # a cluster and its kubeconfig
from tests.pipelines.doctor.cluster.conftest import write_kubeconfig


def test_without_a_kubeconfig():
    with pytest.raises(UserError, match=r"no cluster is named \(Invalid kube-config.*KUBECONFIG"):
        login()


def test_a_context_that_is_not_there(server, kubeconfig):
    write_kubeconfig(kubeconfig, server.url, context="gone")
    with pytest.raises(UserError, match=r"with name gone .*kubectl config use-context"):
        login()


def test_a_kubeconfig_that_is_no_yaml(kubeconfig):
    kubeconfig.write_text("{")
    with pytest.raises(UserError, match="no cluster is named"):
        login()


def test_a_login_that_waits_for_someone(kubeconfig, monkeypatch):
    monkeypatch.setattr(connection, "_LOGIN_S", 0.5)
    command = {"command": sys.executable, "args": ["-c", "import time; time.sleep(3)"]}
    version = "client.authentication.k8s.io/v1"
    write_kubeconfig(kubeconfig, "http://127.0.0.1:1", exec={"apiVersion": version, **command})
    with pytest.raises(UserError, match=r"has not ended within 0 s.*kubectl get namespaces"):
        login()


def test_a_login_whose_token_is_taken(server, kubeconfig):
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "fresh"},
    }
    command = {"command": "echo", "args": [json.dumps(credential)]}
    write_kubeconfig(
        kubeconfig, server.url, exec={"apiVersion": credential["apiVersion"], **command}
    )
    cluster = connect("brainseg", 10)
    assert cluster.get("/version")["gitVersion"] == "v1.35.4"
    assert yaml.safe_load(kubeconfig.read_text())["users"][0]["user"].keys() == {"exec"}


def test_nothing_is_asked_after_the_end(cluster, server):
    late = connect("brainseg", 0)
    with pytest.raises(KubernetesError, match="no time was left"):
        late.get("/version")
    assert not server.requests


def test_no_answer_may_take_longer_than_there_is_time(server, monkeypatch):
    limits = []
    cluster = connect("brainseg", 0.3)

    def call_api(*_, _request_timeout, **__):
        limits.extend(_request_timeout)
        return {}, 200, {}

    monkeypatch.setattr(cluster.api, "call_api", call_api)
    cluster.get("/version")
    assert len(limits) == 2  # to connect, to answer
    assert max(limits) <= 0.3


def test_a_server_that_answers_too_late_has_not_answered(server):
    server.latency_s = 3
    with pytest.raises(KubernetesError, match="no answer"):
        connect("brainseg", 0.3).get("/version")


def test_a_refusal_is_told_in_kubernetes_words(cluster, server):
    server.forbidden = ["nodes"]
    with pytest.raises(KubernetesError, match='User "someone" cannot get it') as refused:
        cluster.get("/api/v1/nodes")
    assert refused.value.status == 403


def test_a_page_of_a_proxy_is_told_by_its_status(cluster, server, monkeypatch):
    monkeypatch.setattr(server, "answer", lambda *_: (502, "a page and no object"))
    with pytest.raises(KubernetesError, match="502 Bad Gateway"):
        cluster.get("/version")


def test_deleting_needs_no_time_left(server):
    server.sent["x"] = {}
    late = connect("brainseg", 0)
    late.delete("pods/x", gracePeriodSeconds="0")
    assert not server.sent
