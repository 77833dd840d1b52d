"""The radiogenomics graph: its YAML, and a run with the champion of a training run."""

import json

import pytest
from google.protobuf.json_format import MessageToDict
from mlflow import MlflowClient

from pipelines.radiogenomics import radiogenomics
from tests.pipelines.conftest import TINY_TRAINING

_SETTINGS = (
    *TINY_TRAINING,
    "register.min_patient_dice=0",
)


def test_the_analysis_has_the_version_that_was_ingested():
    spec = MessageToDict(radiogenomics.pipeline_spec)
    inputs = spec["root"]["dag"]["tasks"]["radiogenomics"]["inputs"]
    assert inputs["parameters"]["dataset_id"]["taskOutputParameter"]["producerTask"] == "ingest"


@pytest.mark.slow
def test_a_run_measures_the_champions_masks_of_the_test_part(tmp_path, brainseg):
    def run(*arguments):
        done = brainseg(
            *("run", "--source", "synthetic:12,seed=3", "--preset", "demo", "--json"),
            *arguments,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    settings = [part for change in _SETTINGS for part in ("--set", change)]
    trained = run("--output", "trained", *settings)
    result = run("--pipeline", "radiogenomics", "--output", "out")
    assert result["dataset_id"] == trained["dataset_id"]
    data = MlflowClient(result["tracking_uri"]).get_run(result["mlflow_run_id"]).data
    assert data.tags["split_id"] == trained["split_id"]
    assert data.params["radiogenomics.model"] == trained["model_uri"]
    assert any(name.startswith("p_expert_all/") for name in data.metrics)
    table = (tmp_path / result["reports"]["features"]).read_text().splitlines()
    split = json.loads((tmp_path / trained["reports"]["split"]).read_text())
    predicted = {line.split(",")[1] for line in table if ",predicted," in line}
    assert predicted == set(split["test"])
    assert "Bounding ellipsoid" in (tmp_path / result["reports"]["radiogenomics"]).read_text()
