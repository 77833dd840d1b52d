"""The whole step on small bodies with a stored model."""

import csv
import uuid

import pytest

from components.radiogenomics.analysis import analyze_shapes
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of


@pytest.fixture
def run(world, tmp_path):
    pipeline_run = uuid.uuid4().hex

    def run(**changes):
        return analyze_shapes(
            world.manifest,
            world.settings.model_copy(update=changes),
            store=world.store,
            cache=world.cache,
            pipeline_run=pipeline_run,
            report=tmp_path / "report",
            features=tmp_path / "features",
        )

    return run


def rows(tmp_path):
    with open(tmp_path / "features", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_predicted_masks_are_of_unseen_patients_only(run, world, tmp_path):
    run_id = run()
    found = rows(tmp_path)
    predicted = {row["volume"] for row in found if row["masks"] == "predicted"}
    assert predicted == set(world.split.part("test"))
    assert sum(row["masks"] == "expert" for row in found) == 12
    assert {row["volume"] for row in found if row["unseen"] == "1"} == predicted
    data = connect().get_run(run_id).data
    assert data.tags["split_id"] == world.split.split_id
    assert data.params["radiogenomics.model"] == f"models:/{world.settings.model_name}/1"
    assert data.metrics["icc_angular_sd"] > 0.9
    # six stars and six cylinders: the margin tells them apart
    assert data.metrics["p_expert_all/margin_fluctuation/RNASeqCluster"] < 0.01
    assert "seen in training" in (tmp_path / "report").read_text()


def test_a_second_attempt_writes_the_same_to_the_same_run_which_ends(run, tmp_path):
    first, page = run(), (tmp_path / "report").read_bytes()
    assert run() == first
    assert (tmp_path / "report").read_bytes() == page
    client = connect()
    for run_id in (first, pipeline_run_of(client, first)):
        assert client.get_run(run_id).info.status == "FINISHED"
    files = [one.path for one in client.list_artifacts(first, "radiogenomics")]
    assert files == ["radiogenomics/features.csv", "radiogenomics/report.html"]


def test_without_a_model_no_registry_is_needed(run, tmp_path):
    run(model="none", model_name="unknown")
    assert {row["masks"] for row in rows(tmp_path)} == {"expert"}
    assert "No model was analyzed" in (tmp_path / "report").read_text()
