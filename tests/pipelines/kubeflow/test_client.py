import ipaddress
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta

import kubernetes
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.shared.errors import UserError
from pipelines.kubeflow.client import KubeflowError, connect, equals
from tests.kfp_api.backend import Backend
from tests.kfp_api.server import Accident, serve


def test_it_connects_to_the_address_that_is_given(server):
    kubeflow = connect(server.url + "/")
    assert (kubeflow.namespace, kubeflow.ui) == ("", server.url)
    assert kubeflow.link("runs/details/7") == f"{server.url}/#/runs/details/7"


def test_it_connects_to_the_address_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "kubeflow.example/pipeline/")
    assert connect().link("runs") == "https://kubeflow.example/pipeline/#/runs"


def test_it_connects_through_the_cluster_of_the_kubeconfig(server, tmp_path, monkeypatch):
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    kubeflow = connect()
    assert (kubeflow.named, kubeflow.link("runs")) == ("the cluster's Kubeflow Pipelines", "")
    with pytest.raises(KubeflowError, match="Run x not found"):
        kubeflow.ask(kubeflow.api.runs.run_service_get_run, "x")


def test_without_any_address_it_says_where_one_can_be_given(capsys):
    with pytest.raises(
        UserError, match=r"--endpoint .* KF_PIPELINES_ENDPOINT, or use a kubeconfig"
    ):
        connect()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "renew the file of KF_PIPELINES_SA_TOKEN_PATH"),
        (403, "check --namespace"),
        (404, "not an API of Kubeflow Pipelines 2 .* check --endpoint"),
        (503, "not ready .* try again"),
        (418, "refuses"),
    ],
)
def test_a_status_is_one_message_at_once(server, status, told):
    server.accidents.append(Accident("healthz", str(status), times=9))
    with pytest.raises(KubeflowError, match=f"{server.url}.*{told}") as error:
        connect(server.url)
    assert error.value.status == status
    assert len(server.requests) == 1  # kfp's own client tries for 25 s


def test_a_page_to_log_in_is_told(server):
    server.accidents.append(Accident("healthz", "login"))
    with pytest.raises(KubeflowError, match="a page, not as an API: log in"):
        connect(server.url)


def test_a_server_that_is_away_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(
            KubeflowError, match=f"{url} does not answer .* check --endpoint"
        ) as error:
            connect(url)
    assert error.value.may_pass


@pytest.mark.parametrize("url", ["http://", "http://no host", "ftp://x.example", "http://[::1"])
def test_an_address_that_is_none_is_told(url):
    with pytest.raises(UserError, match="endpoint"):
        connect(url)


def test_a_server_without_tls_is_told_where_tls_was_asked_for(server):
    with pytest.raises(KubeflowError, match="SSL"):
        connect(server.url.replace("http://", "https://"))


def test_an_installation_for_many_users_wants_a_namespace():
    with serve(Backend(namespaces=frozenset({"mri"}))) as server:
        with pytest.raises(UserError, match=r"has many users.*--namespace"):
            connect(server.url)
        assert connect(server.url, "mri").namespace == "mri"


def test_the_namespace_of_kfps_own_context_is_used(tmp_path):
    (tmp_path / "context.json").write_text('{"namespace": "mri"}')
    with serve(Backend(namespaces=frozenset({"mri", "other"}))) as server:
        assert connect(server.url).namespace == "mri"
        assert connect(server.url, "other").namespace == "other"


def test_a_broken_context_of_kfp_is_told(server, tmp_path):
    (tmp_path / "context.json").write_text("{")
    with pytest.raises(UserError, match=r"context\.json is not JSON"):
        connect(server.url)


def test_an_installation_for_one_user_needs_none(server):
    assert connect(server.url, "kubeflow").namespace == ""


def test_a_token_is_shown_and_read_again_when_it_changes(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("first")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    with serve(token="first") as server:
        kubeflow = connect(server.url)
        server.token = "second"
        service = kubeflow.api.runs.run_service_get_run
        with pytest.raises(KubeflowError, match="the token is missing or has expired"):
            kubeflow.ask(service, "x")
        token.write_text("second")
        with pytest.raises(KubeflowError, match="Run x not found"):
            kubeflow.ask(service, "x")


def test_a_token_file_that_is_not_there_is_told(server, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(UserError, match="/nowhere/token"):
        connect(server.url)


def test_a_certificate_of_an_unknown_authority_is_told(tmp_path, monkeypatch):
    with serve(tls=_self_signed(tmp_path)) as server:
        with pytest.raises(KubeflowError, match="SSL_CERT_FILE"):
            connect(server.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        assert connect(server.url).ui == server.url


def test_lists_are_read_to_their_end(server, backend, kubeflow):
    for number in range(205):
        backend.create_experiment({"display_name": f"e{number}"})
    service = kubeflow.api.experiments.experiment_service_list_experiments
    rows = list(kubeflow.rows(service, "experiments", namespace=""))
    assert [row.display_name for row in rows] == [f"e{number}" for number in range(205)]
    assert server.sent("GET").count("GET /apis/v2beta1/experiments") == 3


def test_a_filter_is_json():
    assert json.loads(equals("name", 'a"b'))["predicates"][0]["string_value"] == 'a"b'


def test_kfps_own_words_are_told(kubeflow):
    with pytest.raises(KubeflowError, match="refuses \\(404\\): Experiment x not found"):
        kubeflow.ask(kubeflow.api.experiments.experiment_service_get_experiment, "x")


def _self_signed(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(address, critical=False)
    pem = serialization.Encoding.PEM
    (folder / "cert").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    secret = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(key.private_bytes(pem, *secret))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context
