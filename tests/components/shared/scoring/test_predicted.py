import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.scoring.decision import find_tumour
from components.shared.scoring.predicted import by_target, scored
from components.shared.scoring.scores import score_volume
from components.shared.storage.store import open_store
from tests.components.conftest import REGION_FORM, REGIONS, Answering


@Answering
def bright(image, _):
    return (image[..., 1] / 255).astype(np.float32)


@pytest.fixture
def dataset(tmp_path, publish, make_blob):
    store = open_store(str(tmp_path / "store"))
    manifest = publish(store, [make_blob(seed) for seed in range(5)])
    volumes = manifest.volumes
    split = make_split({"train": volumes[:1], "validation": volumes[1:2], "test": volumes[2:]})
    return SplitDataset(store, tmp_path / "cache", manifest, split)


def test_scores_the_asked_volumes_in_order(dataset):
    entries = dataset.entries("test")[::-1]

    found = list(scored(bright, dataset, entries, threshold=0.55))

    assert [one.entry for one in found] == list(entries)
    for entry, volume, (mask,), (score,), seconds in found:
        expected = dataset.volume(entry)
        assert np.array_equal(volume.image, expected.image)
        (probability,) = bright(expected.image)
        assert np.array_equal(mask, probability >= 0.55)
        assert score == score_volume(entry, expected, probability, probability >= 0.55)
        assert score.predicted_pixels == mask.sum() > 0
        assert seconds > 0


def test_predicts_a_volume_only_when_it_is_its_turn(dataset):
    images = []

    @Answering
    def segmenter(image, _):
        images.append(image)
        return bright(image)

    found = scored(segmenter, dataset, dataset.entries("test"), threshold=0.5)

    assert not images
    for turn, _ in enumerate(found, start=1):
        assert len(images) == turn
    assert turn == 3


def test_leaves_out_what_the_model_wants_left_out(dataset):
    entries = dataset.entries("test")
    plain, filtered = (
        list(scored(segmenter, dataset, entries, threshold=0.75))
        for segmenter in (bright, Answering(bright, min_component_fraction=1))
    )
    pixels = [
        (one.masks.sum(), other.masks.sum()) for one, other in zip(plain, filtered, strict=True)
    ]
    assert all(0 < after < before for before, after in pixels)
    for one, other in zip(plain, filtered, strict=True):
        expected = find_tumour(bright(one.volume.image)[0], 0.75, 1)
        assert np.array_equal(other.masks[0], expected)
        assert (
            other.score.dice
            == score_volume(one.entry, one.volume, bright(one.volume.image)[0], expected).dice
        )


def test_tells_what_it_has_done(dataset, caplog):
    caplog.set_level(logging.INFO)

    list(scored(bright, dataset, dataset.entries("test"), 0.5, "champion's volumes"))

    assert "champion's volumes: all 3 in" in caplog.text


def test_each_target_is_scored_as_if_it_were_the_only_one(tmp_path, publish, make_regions):
    store = open_store(str(tmp_path / "store"))
    manifest = publish(store, [make_regions(seed) for seed in range(3)], **REGION_FORM)
    volumes = manifest.volumes
    split = make_split({"train": volumes[:1], "validation": volumes[1:2], "test": volumes[2:]})
    dataset = SplitDataset(store, tmp_path / "cache", manifest, split)

    @partial(Answering, targets=REGIONS)
    def segmenter(image, _):
        return np.stack([bright(image)[0] ** power for power in (1, 2, 3)])

    (found,) = scored(segmenter, dataset, dataset.entries("test"), threshold=0.5)

    for number, target in enumerate(REGIONS):
        volume = dataset.volume(found.entry)
        alone = replace(volume, targets=(target,))
        probability = segmenter(volume.image)[number]
        mask = probability >= 0.5
        assert np.array_equal(found.masks[number], mask)
        assert found.scores[number] == score_volume(found.entry, alone, probability, mask)
    assert found.scores[0] == found.score
    assert len({score.tumour_pixels for score in found.scores}) == 3
    arranged = by_target(REGIONS, [found.scores])
    assert list(arranged) == ["whole", "core", "enhancing"]
    assert arranged["core"] == [found.scores[1]]
