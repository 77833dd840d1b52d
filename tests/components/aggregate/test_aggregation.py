import csv
import json
import statistics

import pytest
from mlflow import MlflowClient

from components.aggregate import page
from components.aggregate.aggregation import aggregate_folds
from components.aggregate.settings import AggregateSettings
from components.shared.errors import UserError
from components.shared.scoring.table import read_patient_scores
from components.shared.tracking.server import connect

SETTINGS = AggregateSettings(overlay_volumes=3, device="cpu")


@pytest.fixture(autouse=True)
def _without_charts(monkeypatch):
    # they take as long as the rest of the step; test_page and test_component draw them
    monkeypatch.setattr(page, "draw", lambda figure: "data:image/svg+xml,")


@pytest.fixture
def aggregate(world):
    def aggregate(files=None):
        return aggregate_folds(
            files or world.files,
            world.manifest,
            SETTINGS,
            store=world.store,
            cache=world.cache,
            **{name: world.folder / name for name in ("report", "table", "metrics")},
        )

    return aggregate


def _runs(run_id):
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    return {run.info.run_id: run for run in client.search_runs([experiment])}


def test_every_patient_counts_once_by_the_score_of_the_own_fold(world, aggregate):
    _, figures = aggregate()

    with open(world.folder / "table", newline="") as stream:
        rows = {row["volume"]: row for row in csv.DictReader(stream)}
    assert set(rows) == set(world.manifest.by_name())
    for number, files in enumerate(world.files, start=1):
        for score in read_patient_scores(files.per_patient):
            assert rows[score.volume]["fold"] == f"fold-{number}"
            assert float(rows[score.volume]["dice"]) == score.dice
    dice = [float(row["dice"]) for row in rows.values()]
    assert figures["patient_dice_mean"] == pytest.approx(statistics.mean(dice))
    assert figures["patient_dice_median"] == pytest.approx(statistics.median(dice))
    assert figures["patient_dice_sd"] == pytest.approx(statistics.stdev(dice))
    assert json.loads((world.folder / "metrics").read_text()) == figures


def test_the_pipeline_runs_run_has_the_result_and_all_runs_end(world, aggregate):
    run_id, figures = aggregate()

    runs = _runs(run_id)
    parent = runs.pop(run_id)
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {run_id}
    assert parent.data.metrics["patient_dice_sd"] == figures["patient_dice_sd"]
    files = [item.path for item in connect().list_artifacts(run_id, "cross_validation")]
    assert files == ["cross_validation/out_of_fold.csv", "cross_validation/report.html"]
    assert list(world.store.keys("checkpoints/")) == []


def test_a_second_attempt_writes_the_same(world, aggregate):
    first, page = aggregate(), (world.folder / "report").read_bytes()
    assert aggregate() == first
    assert (world.folder / "report").read_bytes() == page
    assert len(_runs(first[0])) == 3


def test_a_failure_is_of_the_pipeline_run_and_of_no_fold(world, aggregate):
    run_id, _ = aggregate()
    with pytest.raises(UserError, match="not tested by exactly one fold"):
        aggregate(world.files[:1])
    states = {found: run.info.status for found, run in _runs(run_id).items()}
    assert states.pop(run_id) == "FAILED"
    assert set(states.values()) == {"FINISHED"}
