"""Runs that fail."""

import pytest

from tests.kubeflow.conftest import PATIENTS

pytestmark = pytest.mark.kubeflow


def test_a_limit_of_the_profile_ends_a_run_with_its_reason(installation):
    done = installation.brainseg(
        "submit", "--source", f"synthetic:{PATIENTS}", "--wait", "--set", "profile.min_patients=100"
    )
    assert done.returncode == 1
    assert "step profile: " in done.stderr
    assert f"patients: {PATIENTS}, must be at least 100" in done.stderr
    assert "Traceback" not in done.stderr
