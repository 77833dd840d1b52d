"""The inference graph: its YAML, and whole runs in real processes as a schedule starts them."""

import json

import pyarrow.parquet as pq
import pytest
from google.protobuf.json_format import MessageToDict
from mlflow import MlflowClient

from components.shared.reading.sources.synthetic import write_synthetic
from pipelines.inference import inference
from tests.components.notify.conftest import Webhook
from tests.components.threshold_model import write_threshold_model


@pytest.fixture(scope="module")
def spec():
    return MessageToDict(inference.pipeline_spec)


class TestCompiled:
    def test_people_are_told_whatever_happens(self, spec):
        tasks = spec["root"]["dag"]["tasks"]
        assert set(tasks) == {"exit-handler-1", "notify"}
        assert tasks["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"

    def test_the_table_is_written_after_all_shards(self, spec):
        tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
        assert set(tasks) == {"plan-predictions", "brainseg-prediction-shards", "join-predictions"}
        assert "brainseg-prediction-shards" in tasks["join-predictions"]["dependentTasks"]

    def test_the_number_of_shards_is_known_to_the_run_alone(self, spec):
        tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
        inputs = tasks["brainseg-prediction-shards"]["inputs"]
        assert inputs["parameters"]["shards"]["taskOutputParameter"] == {
            "producerTask": "plan-predictions",
            "outputParameterKey": "Output",
        }

    def test_only_source_and_store_are_needed(self):
        assert inference.required_inputs == ["source", "store"]


@pytest.fixture(scope="module")
def webhook():
    opened = Webhook()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_mlflow):
    """A registry with a champion, and five patients without labels."""
    folder = tmp_path_factory.mktemp("inference")
    client = MlflowClient(make_mlflow(folder))
    write_threshold_model(folder / "model", 150)
    client.create_registered_model("brainseg")
    client.create_model_version("brainseg", source=str(folder / "model"))
    client.set_registered_model_alias("brainseg", "champion", "1")
    for mask in write_synthetic(folder / "incoming", 5, seed=0).glob("*/*_mask.tif"):
        mask.unlink()
    return folder


def run(brainseg, folder, output, webhook):
    done = brainseg(
        *("run", "--pipeline", "inference", "--source", "incoming", "--output", output, "--json"),
        *("--set", "predict.shard_volumes=3", "--set", "predict.device=cpu"),
        cwd=folder,
        BRAINSEG_WEBHOOK_URL=webhook.url,
        MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_new_cases_are_predicted_once_and_reported(brainseg, folder, webhook):
    result, log = run(brainseg, folder, "first", webhook)
    assert result["outcome"]["kind"] == "predicted"
    assert result["outcome"]["reason"].startswith("5 cases predicted, ")
    assert {"plan-predictions", "predict-shard", "join-predictions"} <= set(result["seconds"])
    assert webhook.received[-1]["ending"] == "predicted"
    assert "5 new cases, 0 known, 0 refused" in log
    stored = folder / "brainseg-runs" / "store" / "predictions" / "brainseg" / "1"
    table = pq.read_table(stored / "predictions.parquet").to_pylist()
    assert len({row["volume"] for row in table}) == 5
    assert all((folder / "brainseg-runs" / "store" / row["mask"]).exists() for row in table)

    files = {path: path.stat().st_mtime_ns for path in (stored / "cases").rglob("*")}
    again, log = run(brainseg, folder, "again", webhook)
    assert again["outcome"]["kind"] == "unchanged"
    assert "0 new cases, 5 known, 0 refused" in log
    assert {path: path.stat().st_mtime_ns for path in (stored / "cases").rglob("*")} == files
