import csv
import json
import shutil

import pytest

from components.compare import page
from components.compare.comparison import CHOSEN_TAG, compare_models
from components.compare.settings import CompareSettings
from components.shared.errors import UserError
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of

SETTINGS = CompareSettings(device="cpu")


@pytest.fixture(autouse=True)
def _without_charts(monkeypatch):
    # they take as long as the rest of a comparison; test_page and test_component draw them
    monkeypatch.setattr(page, "draw", lambda figure: "data:image/svg+xml,")


@pytest.fixture
def results(world):
    names = ("model", "history", "report", "table")
    return {name: world.folder / "results" / name for name in names}


@pytest.fixture
def compare(world, results):
    def compare(trained=None, settings=SETTINGS):
        shutil.rmtree(world.folder / "results", ignore_errors=True)
        (world.folder / "results").mkdir()
        models = trained or [world.trained[label] for label in ("dim", "right", "blind")]
        return compare_models(models, world.dataset, settings, **results)

    return compare


def test_the_best_on_the_validation_patients_is_copied_and_no_test_patient_is_read(
    world, compare, results
):
    world.lose_the_test_part()
    best = world.trained["right"]

    assert compare() == best.run_id

    files = {path.relative_to(best.folder) for path in best.folder.rglob("*")}
    assert {path.relative_to(results["model"]) for path in results["model"].rglob("*")} == files
    program = "segmenter/model.safetensors"
    assert (results["model"] / program).read_bytes() == (best.folder / program).read_bytes()
    assert json.loads(results["history"].read_text())[0]["label"] == "right"
    with open(results["table"], newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["recipe"] for row in rows] == ["right", "dim", "blind"]
    dice = [float(row["validation_patient_dice_mean"]) for row in rows]
    assert dice == sorted(dice, reverse=True)


def test_each_run_has_its_figures_and_the_pipeline_run_the_choice(world, compare):
    run_id = compare()

    client = connect()
    parent = client.get_run(pipeline_run_of(client, run_id))
    assert parent.data.tags[CHOSEN_TAG] == "right"
    assert parent.info.status == "RUNNING"  # what comes after ends it
    for label in ("dim", "right", "blind"):
        data = client.get_run(world.trained[label].run_id).data
        assert data.tags[CHOSEN_TAG] == ("yes" if label == "right" else "no")
        name = "validation_patient_dice_mean"
        assert parent.data.metrics[f"{label}/{name}"] == data.metrics[name]
    files = [item.path for item in client.list_artifacts(parent.info.run_id, "comparison")]
    assert files == ["comparison/recipes.csv", "comparison/report.html"]


def test_a_second_attempt_chooses_the_same(world, compare):
    models = [world.trained[label] for label in ("dim", "right")]
    assert compare(models) == compare(models)


def test_a_single_recipe_is_chosen(world, compare):
    assert compare([world.trained["dim"]]) == world.trained["dim"].run_id


def test_a_model_of_another_split_is_refused(world, compare, threshold_model):
    other = world.train("other", threshold_model(150), split_id="0" * 16)
    with pytest.raises(UserError, match=f"{other.run_id} was trained on split 0000000000000000"):
        compare([world.trained["dim"], other])


@pytest.mark.parametrize(("count", "drawn"), [(0, 0), (1, 3), (2, 4)])
def test_every_model_draws_the_same_patients_of_each_size(world, compare, results, count, drawn):
    models = [world.trained[label] for label in ("dim", "right")]
    compare(models, SETTINGS.model_copy(update={"overlay_volumes": count}))
    assert results["report"].read_text().count("data:image/webp") == 2 * drawn
