from dataclasses import replace
from types import SimpleNamespace

import pytest

from components.register.held_out import NotComparableError, score_model, unseen
from components.shared.dataset.manifest import make_manifest, manifest_key
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split, split_key
from components.shared.errors import UserError
from components.shared.storage.store import open_store
from tests.components.conftest import REGION_FORM, REGIONS


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def data(store, tmp_path, make_entry):
    """A data set of patients by their numbers, with its parts, published."""

    def data(train, validation, test, **changes):
        numbers = {"train": train, "validation": validation, "test": test}
        entries = {
            number: make_entry(number, site="CS", **changes.get(f"patient_{number}", {}))
            for part in numbers.values()
            for number in part
        }
        split = make_split({part: [entries[one] for one in some] for part, some in numbers.items()})
        manifest = make_manifest(entries.values())
        store.write(manifest_key(manifest.dataset_id), manifest.to_json())
        store.write(split_key(split.split_id), split.to_json())
        return SplitDataset(store, tmp_path / "cache", manifest, split)

    return data


def champion_of(dataset):
    tags = {"dataset_id": dataset.manifest.dataset_id, "split_id": dataset.split.split_id}
    return SimpleNamespace(version=3, tags=tags)


def numbers(entries):
    return sorted(int(entry.patient[-4:]) for entry in entries)


def test_on_the_same_split_all_test_patients_count(data):
    dataset = data([1, 2], [3], [4, 5])
    for compare_on in ("test", "all_unseen"):
        assert numbers(unseen(champion_of(dataset), dataset, compare_on)) == [4, 5]


def test_patients_that_the_champion_learned_from_do_not_count(data):
    old, new = data([1, 2], [3], [4, 5]), data([4], [5], [1, 2, 3, 6])
    for compare_on in ("test", "all_unseen"):
        assert numbers(unseen(champion_of(old), new, compare_on)) == [6]


def test_an_image_that_the_champion_learned_from_does_not_count_under_another_name(
    data, make_entry
):
    twin = {"image_digest": make_entry(1).image_digest}
    old, new = data([1], [2], [3]), data([4], [5], [6, 7], patient_6=twin)
    assert numbers(unseen(champion_of(old), new, "test")) == [7]


def test_all_unseen_adds_the_champions_test_patients_that_today_has_not(data, make_entry):
    twin = {"image_digest": make_entry(12).image_digest}
    old = data([1, 2], [3], [10, 11, 12, 4])
    new = data([4], [5], [6, 7, 1, 8], patient_8=twin)
    assert numbers(unseen(champion_of(old), new, "test")) == [6, 7, 8]
    # the candidate was trained on 4, and 12 is there already under the name of 8
    assert numbers(unseen(champion_of(old), new, "all_unseen")) == [6, 7, 8, 10, 11]


@pytest.mark.parametrize("tag", ["dataset_id", "split_id"])
@pytest.mark.parametrize("compare_on", ["test", "all_unseen"])
def test_a_champion_from_elsewhere_is_reported(data, caplog, tag, compare_on):
    dataset = data([1, 2], [3], [4, 5])
    champion = champion_of(dataset)
    champion.tags[tag] = "0123"
    assert numbers(unseen(champion, dataset, compare_on)) == [4, 5]
    assert "the training data of version 3 are not in store" in caplog.text


def test_a_model_is_scored_with_the_threshold_that_is_given(world):
    entries, pixels = world.dataset.entries("test"), []
    for threshold in (0.1, 0.5, 0.9):
        (scores,) = score_model(
            world.model_folder(150),
            entries,
            world.dataset,
            threshold=threshold,
            device="cpu",
            what="volumes",
        ).values()
        assert [score.volume for score in scores] == [entry.volume for entry in entries]
        pixels.append(sum(score.predicted_pixels for score in scores))
    assert pixels[0] > pixels[1] > pixels[2] > 0


def test_a_model_that_cannot_be_loaded_is_reported(world, tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        score_model(
            tmp_path / "none",
            world.dataset.entries("test"),
            world.dataset,
            threshold=0.5,
            device="cpu",
            what="volumes",
        )


def test_every_target_is_scored_and_other_targets_are_not_comparable(
    make_world, local_mlflow, make_regions, regions_model
):
    world = make_world(make_volume=make_regions, **REGION_FORM)
    entries, rules = world.dataset.entries("test"), (0.5, "cpu", "volumes")
    found = score_model(regions_model, entries, world.dataset, *rules)
    assert list(found) == ["whole", "core", "enhancing"]
    for scores in found.values():
        assert [score.volume for score in scores] == [entry.volume for entry in entries]
    with pytest.raises(NotComparableError, match="finds tumour, and the candidate whole, core, en"):
        score_model(world.model_folder(150), entries, world.dataset, *rules)


def test_a_champion_of_other_targets_is_not_comparable(data):
    old = data([1, 2], [3], [4, 5])
    for targets in (REGIONS, REGIONS[1:]):
        form = {**REGION_FORM, "targets": targets}
        new = replace(old, manifest=make_manifest(old.manifest.volumes, **form))
        with pytest.raises(
            NotComparableError, match=f"tumour, and the candidate {targets[0].name}"
        ):
            unseen(champion_of(old), new, "test")
