import contextlib
import http.server
import os
import socket
import sqlite3
import sys
import threading
import uuid

import pytest
from mlflow.tracking.request_auth import kubernetes_request_auth_provider as provider

from components.shared.errors import OutageError, UserError
from components.shared.tracking import server
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect, open_experiment


@contextlib.contextmanager
def answering(status):
    """A server on loopback that answers every request with this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers)
            self.send_response(status)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def refused(monkeypatch, uri, kind=UserError):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as raised:
        connect()
    assert type(raised.value) is kind
    return str(raised.value)


@pytest.fixture(autouse=True)
def _ask_nobody():
    asked.clear()


asked = []  # headers of the requests to `answering`


def test_a_server_that_is_down_is_reported(no_mlflow, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert refused(monkeypatch, uri, OutageError) == (
        f"MLflow at {uri} cannot be used: connection refused; start the server, or set "
        "MLFLOW_TRACKING_URI to a running one"
    )


@pytest.mark.parametrize(("pod", "times"), [(False, 2), (True, 4)])
def test_a_server_that_never_answers_is_asked_again(no_mlflow, monkeypatch, pod, times):
    """A pod may start while the server restarts."""
    monkeypatch.setitem(server._PROBE, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    if pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        message = refused(monkeypatch, uri, OutageError)
        silent.setblocking(False)
        for _ in range(times):
            silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert "timed out; start the server" in message


@pytest.mark.parametrize(
    ("status", "advice", "kind"),
    [
        (401, "MLFLOW_TRACKING_USERNAME", UserError),
        (403, "--allowed-hosts", UserError),
        (404, "the address must be that of an MLflow server", UserError),
        (503, "start the server", OutageError),
    ],
)
def test_a_server_that_refuses_is_reported(no_mlflow, monkeypatch, status, advice, kind):
    with answering(status) as uri:
        message = refused(monkeypatch, uri, kind)
    assert f"MLflow at {uri} cannot be used" in message
    assert advice in message


@pytest.fixture
def by_kubernetes(no_mlflow, monkeypatch, tmp_path):
    """A process as in a pod: MLflow's own provider finds the token of the ServiceAccount."""
    token = tmp_path / "token"
    token.write_text("of the pod\n")
    monkeypatch.setattr(provider, "_SERVICE_ACCOUNT_TOKEN_PATH", token)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes")
    return token


def test_a_server_that_asks_kubernetes_gets_the_pods_token(by_kubernetes, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with answering(401) as uri:
        message = refused(monkeypatch, uri)
    assert asked[0]["Authorization"] == "Bearer of the pod"
    sent = "MLFLOW_TRACKING_AUTH sends the ServiceAccount's token, which this server refuses"
    assert sent in message


def test_a_server_that_asks_kubernetes_in_vain_says_which_rights_it_needs(
    by_kubernetes, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes-namespaced")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    with answering(403) as uri:
        message = refused(monkeypatch, uri)
    assert asked[0]["X-MLflow-Workspace"] == "team"
    assert "needs get, list, create and update on experiments" in message


def test_a_pod_without_a_token_is_reported(by_kubernetes, monkeypatch):
    by_kubernetes.unlink()
    with answering(200) as uri:
        message = refused(monkeypatch, uri)
    assert "no token of a ServiceAccount; set automountServiceAccountToken" in message
    assert not asked


def test_an_image_without_the_package_is_reported(by_kubernetes, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with answering(200) as uri:
        message = refused(monkeypatch, uri)
    assert "the package kubernetes is not installed; install the extra trainer" in message


def test_an_address_is_needed(no_mlflow):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is not set; set it to a server"):
        connect()


def test_a_local_file_is_not_created_by_a_step(no_mlflow, monkeypatch, tmp_path):
    message = refused(monkeypatch, f"sqlite:///{tmp_path}/none.db")
    assert "there is no MLflow file" in message
    assert not list(tmp_path.iterdir())


def test_the_experiment_is_the_projects_or_the_one_that_is_set(local_mlflow, monkeypatch):
    client = connect()
    usual = open_experiment(client)
    assert client.get_experiment(usual).name == "brainseg"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", uuid.uuid4().hex)
    other = open_experiment(client)
    assert client.get_experiment(other).name == os.environ["MLFLOW_EXPERIMENT_NAME"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", usual)
    assert open_experiment(client) == usual


def test_a_deleted_experiment_says_how_to_restore_it(local_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", uuid.uuid4().hex)
    client = connect()
    experiment = open_experiment(client)
    client.delete_experiment(experiment)
    with pytest.raises(UserError, match=f"restore --experiment-id {experiment}"):
        open_experiment(client)


def test_a_refusal_in_the_middle_of_the_work_is_one_message_too(local_mlflow):
    client = connect()
    with pytest.raises(UserError, match=r"MLflow at sqlite:.* cannot be used"), explaining():
        client.get_run("0" * 32)


@pytest.mark.parametrize("uri", ["localhost:5000", "mlflow.svc:5000/", "10.0.0.1:5000", "mlflow"])
def test_an_address_without_a_scheme_is_reported(no_mlflow, monkeypatch, uri):
    message = refused(monkeypatch, uri)
    assert f"MLFLOW_TRACKING_URI={uri} has no scheme" in message
    assert f"(http://{uri}?)" in message


def test_a_folder_is_no_address(no_mlflow, monkeypatch):
    message = refused(monkeypatch, "/data/mlruns")
    assert "has no scheme; set it to a server" in message
    assert "?)" not in message


def test_a_database_needs_its_driver(no_mlflow, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    message = refused(monkeypatch, "postgresql+psycopg2://me:secret@127.0.0.1:1/mlflow")
    assert "MLflow at postgresql+psycopg2://127.0.0.1:1/mlflow cannot be used" in message
    assert "No module named 'psycopg2'" in message
    assert "install this package" in message


def test_a_database_of_an_unknown_kind_is_reported(no_mlflow, monkeypatch):
    assert "sqlalchemy.dialects:nosql" in refused(monkeypatch, "nosql://host/mlflow")


@pytest.fixture
def locked(no_mlflow, monkeypatch, make_mlflow, tmp_path):
    """A context in which another process writes to the local file, for a number of seconds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))

    @contextlib.contextmanager
    def locked(seconds):
        path = tmp_path / "mlflow.db"
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(seconds, other.rollback)
            timer.start()
            yield
            timer.cancel()
            timer.join()

    return locked


def test_another_writer_of_the_file_is_waited_for(locked):
    client = connect()
    experiment = open_experiment(client)
    with locked(1.0):
        assert client.create_run(experiment).info.status == "RUNNING"


@pytest.mark.slow
def test_another_writer_is_waited_for_longer_than_mlflow_does(locked):
    client = connect()
    experiment = open_experiment(client)
    with locked(60.0):
        assert client.create_run(experiment).info.status == "RUNNING"


def test_a_writer_that_stays_is_an_outage_without_a_traceback(locked, monkeypatch, capfd):
    monkeypatch.setattr(server, "_LOCKED_S", 0.2)
    client = connect()
    experiment = open_experiment(client)
    wanted = pytest.raises(OutageError, match="another process writes to the file")
    with locked(10.0), wanted, explaining():
        client.create_run(experiment)
    assert "Traceback" not in capfd.readouterr().err
