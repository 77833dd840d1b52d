"""The ensemble graph: its YAML, and a whole run in real processes."""

import json

import pytest
from google.protobuf.json_format import MessageToDict
from mlflow import MlflowClient

from pipelines.ensemble import ensemble
from tests.pipelines.conftest import TINY_TRAINING

_SETTINGS = (
    "fold.folds=2",
    *TINY_TRAINING,
)


def test_the_folds_leave_the_test_part_and_one_model_is_registered():
    spec = MessageToDict(ensemble.pipeline_spec)
    tasks = spec["root"]["dag"]["tasks"]
    known = tasks["fold"]["inputs"]["parameters"]["split_id"]["taskOutputParameter"]
    assert known["producerTask"] == "split"
    for step in ("evaluate", "register"):
        model = tasks[step]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
        assert model["producerTask"] == "brainseg-members"


@pytest.mark.slow
def test_a_run_registers_the_average_of_its_members(tmp_path, brainseg):
    settings = [part for change in _SETTINGS for part in ("--set", change)]
    run = brainseg(
        *("run", "--pipeline", "ensemble", "--source", "synthetic:9,seed=3"),
        *("--preset", "demo", "--output", "out", "--json", *settings),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    client = MlflowClient(result["tracking_uri"])
    version = client.get_model_version("brainseg", result["model_version"])
    data = client.get_run(version.run_id).data
    assert data.tags["label"] == "ensemble"
    assert data.params["ensemble.members"] == "2"
    assert data.tags["split_id"] == result["split_id"]
    report = (tmp_path / result["reports"]["evaluation"]).read_text()
    assert "Training of fold-1" in report
    assert "Training of fold-2" in report
