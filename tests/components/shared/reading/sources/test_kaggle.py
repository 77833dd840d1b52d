import contextlib
import http.server
import socket
import sys
import threading

import pytest

from tests.components.shared.reading.sources.opened import refusal


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Kagglehub talks to port 7777 of this machine; nobody listens there unless the test does."""
    pytest.importorskip("kagglehub")
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("localhost", 7777), timeout=1).close()
        pytest.skip("port 7777, which kagglehub's test environment means, is in use")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))


def test_unreachable(kaggle):
    message = refusal("kaggle:owner/dataset")
    assert "Kaggle cannot be reached; check the network" in message


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "Resource not found"), (403, "don't have permission")]
)
def test_refused(kaggle, status, reason, capfd):
    with answering(status):
        message = refusal("kaggle:owner/dataset")
    assert reason in message
    assert "the form is kaggle:owner/dataset" in message
    assert capfd.readouterr().out == ""


def test_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert "pip install 'brainseg[kaggle]'" in refusal("kaggle:owner/dataset")


@contextlib.contextmanager
def answering(status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("localhost", 7777), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()
