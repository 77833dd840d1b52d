import asyncio
import threading

import pytest

from pipelines.serving import upload
from pipelines.serving.upload import Answer


def test_health_and_names(connect):
    client = connect()
    assert client.get("/v2").json()["name"] == "brainseg"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/brainseg/ready").json() == {"name": "brainseg", "ready": True}
    for path in ("/v2/models/other", "/v2/models/brainseg/versions/7", "/nothing"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]
        assert answer.headers["x-model-version"] == "0"
    assert client.get("/predict").status_code == 405


def test_bodies_beyond_the_limit(connect):
    client = connect(max_body_mib=0.01)

    def chunks():
        for _ in range(100):
            yield bytes(1000)

    assert client.post("/predict", content=bytes(11_000)).status_code == 413
    assert client.post("/predict", content=chunks()).status_code == 413
    assert client.post("/predict", content=b"").status_code == 400
    declared = {"content-length": str(10 * 2**30)}
    answer = client.post("/predict", content=b"x", headers=declared)
    assert answer.status_code == 413
    assert "max_body_mib=0.01" in answer.json()["error"]


def test_requests_beyond_the_limit(connect, monkeypatch):
    started, go = threading.Event(), threading.Event()

    def wait(path, model, settings):
        started.set()
        assert go.wait(30)
        return Answer("mask.tif", b"mask")

    monkeypatch.setattr(upload, "predict_upload", wait)
    client, answers = connect(max_requests=1), []
    thread = threading.Thread(target=lambda: answers.append(client.post("/predict", content=b"x")))
    thread.start()
    assert started.wait(30)
    refused = client.post("/predict", content=b"x")
    go.set()
    thread.join()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert answers[0].content == b"mask"
    assert client.post("/predict", content=b"x").status_code == 200


def test_a_failure_is_no_secret_to_the_log_only(connect, monkeypatch):
    def fail(path, model, settings):
        raise RuntimeError("secret")

    monkeypatch.setattr(upload, "predict_upload", fail)
    answer = connect().post("/predict", content=b"x")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_metrics(connect, zipped):
    client = connect()
    assert client.post("/predict", content=zipped).status_code == 200
    client.get("/nothing")
    text = client.get("/metrics").text
    assert 'brainseg_requests_total{path="predict",status="200"} 1' in text
    assert 'brainseg_requests_total{path="other",status="404"} 1' in text
    assert 'brainseg_request_seconds_bucket{path="predict",le="+Inf"} 1' in text
    assert 'brainseg_model_info{name="brainseg",version="0"} 1' in text


@pytest.mark.parametrize("path", ["/predict", "/v2/models/brainseg/infer"])
def test_a_slow_body(connect, path):
    client = connect(read_timeout_s=0.2)
    app = client.app
    sent = []

    async def receive():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    client.portal.call(app, scope, receive, send)
    assert sent[0]["status"] == 408
