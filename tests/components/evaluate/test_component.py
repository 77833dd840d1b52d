import csv
import json

import numpy as np
import pytest
from kfp import dsl

from components.evaluate.component import evaluate
from components.evaluate.settings import EvaluateSettings

SETTINGS = EvaluateSettings(overlay_volumes=1, device="cpu")


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
        "report": dsl.HTML(uri=str(results["report"])),
        "per_patient": dsl.Dataset(uri=str(results["per_patient"])),
        "metrics": dsl.Metrics(uri=str(results["metrics"])),
    }


def test_the_step_logs_every_number_as_a_kfp_metric(step_arguments):
    evaluate.python_func(**step_arguments)

    metrics = step_arguments["metrics"]
    with open(metrics.path) as stream:
        assert metrics.metadata == json.load(stream)
    with open(step_arguments["per_patient"].path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert np.mean([float(row["dice"]) for row in rows]) == metrics.metadata["patient_dice_mean"]


def test_the_step_reports_a_users_mistake_in_one_line(step_arguments, capsys):
    with pytest.raises(SystemExit):
        evaluate.python_func(**{**step_arguments, "settings": "treshold: 0.4"})

    error = capsys.readouterr().err
    assert "evaluate.treshold is not a setting" in error
    assert "Traceback" not in error


def test_a_model_that_answers_nan_is_reported_in_one_line(step_arguments, threshold_model, capsys):
    model = dsl.Model(uri=str(threshold_model(float("nan"))))
    with pytest.raises(SystemExit):
        evaluate.python_func(**{**step_arguments, "model": model})

    found = capsys.readouterr().err.splitlines()[-1]
    assert found.startswith("brainseg error: TCGA_CS_0000_19990101: the model returned values")
