import csv
import json

import numpy as np
import pytest
from kfp import dsl
from mlflow import MlflowClient
from PIL import Image

from components.evaluate.component import evaluate
from components.evaluate.evaluation import ResultFiles, evaluate_model
from components.evaluate.settings import EvaluateSettings
from components.shared.errors import UserError
from components.shared.scoring.metrics import aggregate
from components.shared.scoring.scores import score_volume
from components.shared.scoring.segmenter import load_segmenter
from components.shared.scoring.table import read_patient_scores

SETTINGS = EvaluateSettings(bootstrap_resamples=200, overlay_volumes=1, device="cpu")


@pytest.fixture
def results(tmp_path):
    return ResultFiles(*(tmp_path / name for name in ("report", "per_patient", "metrics")))


def artifact_paths(client, run_id, folder=None):
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from artifact_paths(client, run_id, item.path)
        else:
            yield item.path


def test_evaluates_the_exported_model(dataset, model, history, mlflow_run_id, results):
    found = evaluate_model(
        dataset,
        SETTINGS,
        model=model,
        history=history,
        mlflow_run_id=mlflow_run_id,
        results=results,
    )

    segmenter = load_segmenter(model, "cpu")
    expected = []
    for entry in dataset.split.entries("test", dataset.manifest):
        volume = dataset.volume(entry)
        expected.append(score_volume(entry, volume, segmenter(volume.image), 0.5))
    assert found == aggregate(expected, 200)
    assert 0 < found["patient_dice_mean_empty_baseline"] < found["patient_dice_mean"] < 1
    assert json.loads(results.metrics.read_text()) == found
    assert [score.dice for score in read_patient_scores(results.per_patient)] == [
        score.dice for score in expected
    ]
    assert results.report.read_text().startswith("<!doctype html>")

    client = MlflowClient()
    run = client.get_run(mlflow_run_id)
    assert run.data.metrics == pytest.approx(run.data.metrics | found)
    assert run.data.metrics["site/CS/patients"] == 5
    assert "size/large/patient_dice_mean" in run.data.metrics
    assert run.data.params["evaluate.threshold"] == "0.5"
    paths = sorted(artifact_paths(client, mlflow_run_id))
    assert paths[:3] == [
        f"evaluation/{name}" for name in ("groups.json", "per_patient.csv", "report.html")
    ]
    # the first name of each size third
    assert paths[3:] == [
        f"overlays/TCGA_{name}_20000101.png" for name in ("CS_0000", "CS_0004", "CS_0006")
    ]
    overlay = Image.open(client.download_artifacts(mlflow_run_id, paths[3]))
    assert max(overlay.size) == 384


def test_a_failure_marks_the_run(dataset, history, mlflow_run_id, results, tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        evaluate_model(
            dataset,
            SETTINGS,
            model=tmp_path / "no model",
            history=history,
            mlflow_run_id=mlflow_run_id,
            results=results,
        )

    assert MlflowClient().get_run(mlflow_run_id).info.status == "FAILED"
    assert not results.metrics.exists()


@pytest.fixture
def step_arguments(dataset, model, history, mlflow_run_id, results, tmp_path):
    manifest, split = tmp_path / "manifest.json", tmp_path / "split.json"
    manifest.write_bytes(dataset.manifest.to_json())
    split.write_bytes(dataset.split.to_json())
    return {
        "store": dataset.store.uri,
        "dataset_id": dataset.manifest.dataset_id,
        "split_id": dataset.split.split_id,
        "mlflow_run_id": mlflow_run_id,
        "manifest": dsl.Dataset(uri=str(manifest)),
        "split": dsl.Artifact(uri=str(split)),
        "model": dsl.Model(uri=str(model)),
        "history": dsl.Artifact(uri=str(history)),
        "settings": SETTINGS.model_dump_json(),
        "report": dsl.HTML(uri=str(results.report)),
        "per_patient": dsl.Dataset(uri=str(results.per_patient)),
        "metrics": dsl.Metrics(uri=str(results.metrics)),
    }


def test_the_step_logs_every_number_as_a_kfp_metric(step_arguments):
    evaluate.python_func(**step_arguments)

    metrics = step_arguments["metrics"]
    with open(metrics.path) as stream:
        assert metrics.metadata == json.load(stream)
    with open(step_arguments["per_patient"].path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert np.mean([float(row["dice"]) for row in rows]) == metrics.metadata["patient_dice_mean"]


def test_the_step_tells_a_users_mistake_in_one_line(step_arguments, capsys):
    with pytest.raises(SystemExit):
        evaluate.python_func(**{**step_arguments, "settings": "treshold: 0.4"})

    error = capsys.readouterr().err
    assert "evaluate.treshold is not a setting" in error
    assert "Traceback" not in error


def test_a_model_that_answers_nan_is_told_in_one_line(step_arguments, threshold_model, capsys):
    model = dsl.Model(uri=str(threshold_model(float("nan"))))
    with pytest.raises(SystemExit):
        evaluate.python_func(**{**step_arguments, "model": model})

    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("brainseg error: TCGA_CS_0000_20000101: the model gave values from nan")
