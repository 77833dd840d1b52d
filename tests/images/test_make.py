"""Tools of `make`: which one is taken, and the sentence for one that is missing."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = "localhost/brainseg-data-python:1 localhost/brainseg-mlflow:1 localhost/brainseg-test-post"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a program of this name before those of this machine."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def put(name, script):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


def run(*command, **environment):
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("docker", "podman", "taken"), [("exit 0", "exit 0", "docker"), ("exit 1", "exit 0", "podman")]
)
def test_an_engine_that_answers_builds_the_images(tool, docker, podman, taken):
    """A docker client may be there without its daemon."""
    tool("docker", docker)
    tool("podman", podman)
    made = run("make", "--no-print-directory", "--dry-run", "image-data")
    assert made.stdout.startswith(f"{taken} build "), made.stderr


@pytest.mark.parametrize("target", ["image-data", "push"])
def test_engines_that_do_not_answer_are_one_sentence(tool, target):
    tool("docker", "exit 1")
    tool("podman", "exit 1")
    made = run("make", target, "REGISTRY=r.example")
    assert made.returncode == 2
    assert "neither docker nor podman answers; start docker's daemon or install podman" in (
        made.stderr
    )


def check(**environment):
    done = run("tests/cluster/check", "1", **environment)
    return done.returncode, done.stderr.splitlines()


def test_a_cluster_that_is_not_there_is_one_sentence(tool):
    tool("kubectl", "echo 'connection refused' >&2; exit 1")
    code, told = check(KUBECONFIG="x", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert code == 1
    assert told == [
        "make cluster-test: the cluster of KUBECONFIG=x is not ready: connection refused",
        "make cluster-test: no S3 server answers at AWS_ENDPOINT_URL=http://127.0.0.1:1; start it, "
        "or correct the address.",
    ]


def test_a_variable_that_is_not_set_is_one_sentence(tool):
    tool("kubectl", "exit 0")
    code, (cluster, s3) = check(KUBECONFIG="", AWS_ENDPOINT_URL="")
    assert code == 1
    assert cluster.startswith("make cluster-test: KUBECONFIG names no cluster; ")
    assert s3.startswith("make cluster-test: AWS_ENDPOINT_URL names no S3 server; ")


def test_each_image_that_the_node_has_not_is_one_sentence(tool):
    tool("kubectl", f"echo {NODE}gres:15")
    tool("podman", "exit 0")
    code, (image, _) = check(KUBECONFIG="x", AWS_ENDPOINT_URL="")
    assert code == 1
    assert "the node has no image localhost/brainseg-trainer-python:1; build it (make im" in image
