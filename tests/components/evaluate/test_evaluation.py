import html
import json
import re

import pytest
from mlflow import MlflowClient
from PIL import Image

from components.evaluate.evaluation import evaluate_model
from components.evaluate.settings import EvaluateSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.errors import UserError
from components.shared.model.segmenter import load_segmenter
from components.shared.scoring.metrics import HEADLINE, aggregate
from components.shared.scoring.scores import score_volume
from components.shared.scoring.table import read_patient_scores, read_target_scores
from components.shared.storage.store import open_store
from components.shared.tracking.status import pipeline_run_of
from tests.components.conftest import REGION_FORM

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


def test_each_target_is_reported(
    tmp_path, publish, make_regions, regions_model, history, mlflow_run_id, results
):
    store = open_store(str(tmp_path / "store"))
    manifest = publish(store, [make_regions(seed) for seed in range(6)], **REGION_FORM)
    volumes = manifest.volumes
    split = make_split({"train": volumes[:1], "validation": volumes[1:2], "test": volumes[2:]})
    dataset = SplitDataset(store, tmp_path / "cache", manifest, split)
    options = {"model": regions_model, "history": history, "mlflow_run_id": mlflow_run_id}

    found = evaluate_model(dataset, SETTINGS, **options, **results)

    scores = read_target_scores(results["per_patient"])
    assert list(scores) == ["whole", "core", "enhancing"]
    for target, prefix in {"whole": "", "core": "core/", "enhancing": "enhancing/"}.items():
        dice = sum(score.dice for score in scores[target]) / 4
        assert found[f"{prefix}patient_dice_mean"] == pytest.approx(dice)
    assert json.loads(results["metrics"].read_text()) == found
    run = MlflowClient().get_run(mlflow_run_id)
    assert run.data.metrics == pytest.approx(run.data.metrics | found)
    page = html.unescape(results["report"].read_text())
    assert "FLAIR, with the true and the predicted outline of whole (green and magenta)" in page
    sections = re.findall("<h2>(Target .*?)</h2>", page)
    assert sections == ["Target core", "Target enhancing"]
    core = page.partition("<h2>Target core</h2>")[2].partition("<h2>Target enhancing</h2>")[0]
    assert f"{found['core/patient_dice_mean']:.3f}" in core
    for score in scores["core"]:
        assert f"<td>{score.volume}</td>" in core
    assert page.count("<h2>Calibration</h2>") == 1
