import json

import pytest
from kfp import dsl

from components.shared.dataset.split import fetch_split
from components.shared.storage.store import open_store
from components.split.component import fold, split


@pytest.fixture
def run(tmp_path, make_data):
    """Runs the step's body as its process would, on a data set of a given size."""

    def run(settings, patients=40, **parameters):
        data = make_data(patients)
        (tmp_path / "manifest").write_bytes(data.to_json())
        manifest = dsl.Dataset(uri=str(tmp_path / "manifest"))
        made = dsl.Artifact(uri=str(tmp_path / "split"))
        store = str(tmp_path / "store")
        return split.python_func(store, data.dataset_id, manifest, settings, made, **parameters)

    return run


def test_leaves_the_split_as_a_file_and_in_the_store(run, tmp_path):
    split_id = run("{test_fraction: 0.25, validation_fraction: 0.25}")
    written = json.loads((tmp_path / "split").read_text())
    assert {part: len(names) for part, names in written.items()} == {
        "train": 20,
        "validation": 10,
        "test": 10,
    }
    stored = fetch_split(open_store(str(tmp_path / "store")), split_id)
    assert stored.to_json() == (tmp_path / "split").read_bytes()


def test_follows_a_previous_split(run, tmp_path):
    first = run("")
    second = run(f"{{previous: '{first}', seed: 8, test_fraction: 0.5}}")
    assert second == first


def test_follows_the_champions_split(run):
    first = run("")
    assert run("seed: 8", previous=first) == first != run("seed: 8")


def test_an_unknown_previous_split_ends_the_step(run, capfd):
    known = run("")
    with pytest.raises(SystemExit):
        run("previous: 0123456789abcdef")
    message = capfd.readouterr().err
    assert "brainseg error: " in message
    assert f"has no split '0123456789abcdef'; it has: {known}" in message


@pytest.fixture
def deal(tmp_path, make_data):
    def deal(settings, patients=40, recipes=()):
        data = make_data(patients)
        (tmp_path / "manifest").write_bytes(data.to_json())
        manifest = dsl.Dataset(uri=str(tmp_path / "manifest"))
        store = str(tmp_path / "store")
        return fold.python_func(store, data.dataset_id, manifest, settings, list(recipes))

    return deal


def test_folds_are_labelled_and_kept_in_the_store(deal, tmp_path):
    folds = deal("folds: 3")
    assert [one["label"] for one in folds] == ["fold-1", "fold-2", "fold-3"]
    store = open_store(str(tmp_path / "store"))
    assert [fetch_split(store, one["split_id"]).split_id for one in folds] == [
        one["split_id"] for one in folds
    ]


def test_recipes_meet_every_fold(deal):
    recipes = [{"label": label, "settings": f"seed: {label}"} for label in "12"]
    folds = {one["label"]: one["split_id"] for one in deal("folds: 2")}
    assert deal("folds: 2", recipes=recipes) == [
        {**recipe, "label": f"{recipe['label']} {fold}", "split_id": split_id}
        for recipe in recipes
        for fold, split_id in folds.items()
    ]


def test_a_split_that_follows_a_fold_is_that_fold(deal, run):
    for one in deal("{folds: 3, seed: 5, validation_fraction: 0.2}"):
        assert run("", previous=one["split_id"], label=one["label"]) == one["split_id"]


def test_too_many_folds_end_the_step_and_it_says_how_to_go_on(deal, capfd):
    with pytest.raises(SystemExit):
        deal("folds: 50")
    found = capfd.readouterr().err
    assert "brainseg error: 50 folds of this data set are not possible; lower fold.folds" in found
