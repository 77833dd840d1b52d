import csv

import pytest

from components.compare.folds import CHOSEN_TAG, DICE, compare_over_folds
from components.compare.settings import CompareSettings
from components.shared.dataset.split import make_split, split_key
from components.shared.errors import UserError
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of

LEVELS = {"dim": 110, "right": 150}


@pytest.fixture
def folds(world, threshold_model):
    """Two recipes, each trained on two folds of the twelve patients."""
    volumes, store = world.dataset.manifest.volumes, world.dataset.store
    tested = (volumes[:6], volumes[6:])
    trained = {}
    for number, (test, rest) in enumerate(zip(tested, reversed(tested), strict=True), start=1):
        split = make_split({"train": rest[:4], "validation": rest[4:], "test": test})
        store.write(split_key(split.split_id), split.to_json())
        for recipe, level in LEVELS.items():
            label, model = f"{recipe} fold-{number}", threshold_model(level)
            trained[label] = world.train(label, model, split_id=split.split_id)
    return trained


@pytest.fixture
def compare(world, folds):
    def compare(trained=None):
        return compare_over_folds(
            trained or list(folds.values()),
            world.dataset.manifest,
            CompareSettings(device="cpu"),
            store=world.dataset.store,
            cache=world.folder / "cache",
            report=world.folder / "report",
            table=world.folder / "table",
        )

    return compare


def test_every_patient_decides_and_the_runs_end(world, folds, compare):
    assert compare() == "right"
    with open(world.folder / "table", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["recipe"] for row in rows] == ["right", "dim"]
    page = (world.folder / "report").read_text()
    assert "12 patients, out of fold, 2 folds" in page
    assert "Nothing is registered" in page
    client = connect()
    parent = client.get_run(pipeline_run_of(client, folds["dim fold-1"].run_id))
    assert parent.data.tags[CHOSEN_TAG] == "right"
    assert parent.data.metrics[f"right/{DICE}"] == float(rows[0][DICE])
    assert parent.info.status == "FINISHED"


def test_a_recipe_that_misses_a_fold_is_refused(folds, compare):
    trained = [one for label, one in folds.items() if label != "dim fold-2"]
    with pytest.raises(UserError, match=r"dim: 6 of 12 patients are not tested by exactly one"):
        compare(trained)
