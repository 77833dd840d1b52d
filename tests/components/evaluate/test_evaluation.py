import json
import re

import pytest
from mlflow import MlflowClient
from PIL import Image

from components.evaluate.evaluation import evaluate_model
from components.evaluate.settings import EvaluateSettings
from components.shared.errors import UserError
from components.shared.model.segmenter import load_segmenter
from components.shared.scoring.metrics import HEADLINE, aggregate
from components.shared.scoring.scores import score_volume
from components.shared.scoring.table import read_patient_scores
from components.shared.tracking.status import pipeline_run_of

SETTINGS = EvaluateSettings(overlay_volumes=1, device="cpu")


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
        **results,
    )

    segmenter = load_segmenter(model, "cpu")
    expected = []
    for entry in dataset.split.entries("test", dataset.manifest):
        volume = dataset.volume(entry)
        (probability,) = segmenter(volume.image)
        expected.append(score_volume(entry, volume, probability, probability >= 0.5))
    assert found == {**aggregate(expected), "threshold": 0.5}
    assert 0 < found["patient_dice_mean_empty_baseline"] < found["patient_dice_mean"] < 1
    assert json.loads(results["metrics"].read_text()) == found
    assert [score.dice for score in read_patient_scores(results["per_patient"])] == [
        score.dice for score in expected
    ]
    page = results["report"].read_text()
    assert page.startswith("<!doctype html>")
    assert re.search(r"Suggested learning rate</span><br><span class=\"value\">0.0012<", page)

    client = MlflowClient()
    run = client.get_run(mlflow_run_id)
    assert run.data.metrics == pytest.approx(run.data.metrics | found)
    assert run.data.metrics["site/CS/patients"] == 5
    assert "size/large/patient_dice_mean" in run.data.metrics
    above = client.get_run(pipeline_run_of(client, mlflow_run_id)).data.metrics
    assert above == {name: found[name] for name in HEADLINE}
    assert run.data.params["evaluate.threshold"] == "0.5"
    paths = sorted(artifact_paths(client, mlflow_run_id))
    assert paths[:3] == [
        f"evaluation/{name}" for name in ("groups.json", "per_patient.csv", "report.html")
    ]
    # the first name of each size third
    assert paths[3:] == [
        f"overlays/TCGA_{name}_19990101.png" for name in ("CS_0000", "CS_0004", "CS_0006")
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
            **results,
        )

    assert MlflowClient().get_run(mlflow_run_id).info.status == "FAILED"
    assert not results["metrics"].exists()
