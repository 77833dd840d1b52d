import subprocess

import pytest

from components.shared.tracking.origin import origin_tags


def test_commit_and_image_can_be_given(no_mlflow, monkeypatch):
    monkeypatch.setenv("BRAINSEG_GIT_COMMIT", "c0ffee")
    monkeypatch.setenv("BRAINSEG_IMAGE_DIGEST", "sha256:abc")
    tags = origin_tags()
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["image_digest"] == "sha256:abc"


def test_in_a_checkout_the_commit_is_found(no_mlflow):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not in a git checkout")
    tags = origin_tags()
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["mlflow.source.git.dirty"] in ("true", "false")
    assert "image_digest" not in tags
