"""`make push` with programs that answer as docker and podman do; no registry is needed."""

import json
import subprocess
from pathlib import Path

import pytest

from components.shared.step import DATA_IMAGE

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "ab12" * 16

PODMAN = f"""#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  "push --help") echo "  --digestfile string   Write the digest of the pushed image to the file" ;;
  "push --digestfile "*) echo "Copying blob"; printf '%s' {DIGEST} > "$3" ;;
esac
"""
DOCKER = f"""#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  "push --help") echo "  -q, --quiet   Suppress verbose output" ;;
  "push "*) echo "digest: {DIGEST} size: 1" ;;
  "image inspect "*) echo other.example/x@sha256:00; echo "${{5%:*}}@{DIGEST}" ;;
esac
"""


@pytest.fixture
def push(tmp_path, monkeypatch):
    """Runs `make push` with a program in place of docker or podman; tells its calls."""

    def run(program, *arguments):
        (tmp_path / "engine").write_text(program)
        (tmp_path / "engine").chmod(0o755)
        monkeypatch.setenv("LOG", str(tmp_path / "calls"))
        return subprocess.run(
            [
                *("make", "push", f"CONTAINER={tmp_path}/engine"),
                *(f"DIGESTS={tmp_path}/d/file.json", *arguments),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("program", [PODMAN, DOCKER], ids=["podman", "docker"])
def test_digests_are_written_by_name(push, tmp_path, program):
    done = push(program, "REGISTRY=r.example/team")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "d" / "file.json").read_text()) == {
        "brainseg-cli-python": DIGEST,
        "brainseg-data-python": DIGEST,
        "brainseg-mlflow": DIGEST,
        "brainseg-trainer-python": DIGEST,
    }
    calls = (tmp_path / "calls").read_text()
    assert f"tag {DATA_IMAGE} r.example/team/{DATA_IMAGE}" in calls


@pytest.mark.parametrize(
    "program",
    [
        PODMAN.replace(DIGEST, "unknown"),
        DOCKER.replace(DIGEST, "unknown"),
        PODMAN.replace("printf", "exit 125; printf"),
    ],
    ids=["podman", "docker", "refused"],
)
def test_without_a_digest_nothing_is_written(push, tmp_path, program):
    done = push(program, "REGISTRY=r.example/team")
    assert done.returncode != 0
    assert not (tmp_path / "d").exists()


def test_a_registry_must_be_named(push, tmp_path):
    refused = push(PODMAN)
    assert refused.returncode == 2
    assert "make push REGISTRY=" in refused.stderr
    assert not (tmp_path / "calls").exists()
