import json
import os
import socket
import subprocess
import sys

import pytest

from pipelines.doctor import pod


@pytest.fixture
def answered(tmp_path):
    """What a pod leaves as its termination message; it ends as a pod does."""

    def run(store="", limit_s=300, weights=(), **environment):
        answer = tmp_path / "termination-log"
        script = (
            "import sys; from pathlib import Path; from pipelines.doctor import pod; "
            f"sys.argv[1:] = {[store, *weights]!r}; pod.main(Path({str(answer)!r}), {limit_s})"
        )
        command = [sys.executable, "-c", script]
        subprocess.run(command, check=True, timeout=600, env={**os.environ, **environment})
        return json.loads(answer.read_text())

    return run


def test_tells_of_the_store_and_of_mlflow(answered, make_mlflow, tmp_path):
    uri = make_mlflow(tmp_path)
    store, weights = str(tmp_path / "store"), ["imagenet:resnet34"]
    answer = answered(store, weights=weights, MLFLOW_TRACKING_URI=uri)
    assert {each["name"]: each["status"] for each in answer["checks"]} == {
        "store": "ok",
        "weights": "warning",  # pods may not be able to fetch them
        "MLflow": "ok",
    }
    assert answer["time"] > 1e9


def test_settings_have_the_prefix_that_steps_know(answered):
    answer = answered(
        "s3://bucket/x",
        MLFLOW_TRACKING_URI="",
        BRAINSEG_AWS_ENDPOINT_URL_S3="http://127.0.0.1:1",
        BRAINSEG_AWS_ACCESS_KEY_ID="id",
        BRAINSEG_AWS_SECRET_ACCESS_KEY="key",
    )
    store, mlflow = answer["checks"]
    assert store["status"] == "error"
    assert "no answer from http://127.0.0.1:1" in store["found"]
    assert (mlflow["status"], mlflow["found"]) == (
        "unknown",
        "pods have no MLFLOW_TRACKING_URI",
    )


def test_what_a_network_swallows_is_not_waited_for(answered):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = answered(limit_s=2, MLFLOW_TRACKING_URI=uri)
    (check,) = answer["checks"]
    assert (check["status"], check["found"]) == ("error", "no answer within 2 s")
    assert "NetworkPolicy" in check["advice"]


def test_an_answer_fits_into_what_the_kubelet_keeps():
    check = pod.Check("store", "error", "x" * 9000, "y" * 9000)
    shortened = [pod._shortened(check)] * 2
    assert len(json.dumps([vars(each) for each in shortened])) < 4096
