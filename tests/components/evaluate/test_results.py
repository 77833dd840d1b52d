import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from components.evaluate.results import (
    PackedMask,
    evaluate_test_part,
    ranked_volumes,
)
from components.evaluate.settings import EvaluateSettings
from components.shared.dataset.channels import LGG_CHANNELS
from components.shared.dataset.parts import SplitDataset
from components.shared.errors import UserError
from components.shared.scoring.groups import group
from components.shared.scoring.metrics import aggregate
from components.shared.scoring.scores import score_volume
from tests.components.conftest import Answering

SETTINGS = EvaluateSettings()


@Answering
def bright_flair(image, _):
    return (image[..., LGG_CHANNELS.reference_index] / 255).astype(np.float32)


@pytest.fixture(scope="session")
def make_patients(make_patient_score):
    def make_patients(count):
        return [
            make_patient_score(f"v{index:02}", tumour_pixels=100 + index, true_positives=index + 1)
            for index in range(count)
        ]

    return make_patients


@given(arrays(bool, array_shapes(max_dims=3)))
def test_a_mask_survives_packing(mask):
    found = PackedMask.pack(mask).unpack()

    assert found.dtype == bool
    assert np.array_equal(found, mask)


def test_scores_every_test_volume_and_no_other(dataset):
    seen = []

    @Answering
    def segmenter(image, name):
        assert name in dataset.split.part("test")
        seen.append(np.array(image))
        return bright_flair(image)

    found = evaluate_test_part(segmenter, dataset, SETTINGS)

    assert tuple(score.volume for score in found.scores) == dataset.split.part("test")
    entries = dataset.split.entries("test", dataset.manifest)
    assert len(seen) == len(entries)
    for image, entry, score in zip(seen, entries, found.scores, strict=True):
        volume = dataset.volume(entry)
        assert np.array_equal(image, volume.image)
        (probability,) = bright_flair(image)
        mask = probability >= SETTINGS.threshold
        assert score == score_volume(entry, volume, probability, mask)
        (predicted,) = found.predictions[entry.volume].unpack()
        assert np.array_equal(predicted, probability >= SETTINGS.threshold)


def test_the_numbers_are_those_of_the_scores(dataset):
    found = evaluate_test_part(bright_flair, dataset, SETTINGS)

    assert found.metrics == {**aggregate(found.scores), "threshold": 0.5}
    assert found.groups == {name: aggregate(some) for name, some in group(found.scores).items()}
    assert list(found.groups)[:2] == ["site/CS", "site/DU"]
    json.dumps([found.metrics, found.groups], allow_nan=False)


def test_the_threshold_decides(dataset):
    strict = evaluate_test_part(bright_flair, dataset, EvaluateSettings(threshold=0.99))

    assert strict.metrics["threshold"] == 0.99
    assert strict.metrics["precision_undefined"] == len(dataset.split.test)
    assert "precision_mean" not in strict.metrics
    for name in ("patient_dice_mean", "pooled_dice", "slice_dice_mean"):
        assert strict.metrics[name] == strict.metrics[f"{name}_empty_baseline"]


def test_a_patient_in_two_parts_is_refused(dataset):
    split = dataset.split
    leaking = split.model_copy(update={"train": split.test})
    leaking = SplitDataset(dataset.store, dataset.cache, dataset.manifest, leaking)

    with pytest.raises(UserError, match="named twice"):
        evaluate_test_part(bright_flair, leaking, SETTINGS)


def test_opening_refuses_files_of_another_version(dataset, tmp_path):
    manifest, split = tmp_path / "manifest.json", tmp_path / "split.json"
    manifest.write_bytes(dataset.manifest.to_json())
    split.write_bytes(dataset.split.to_json())
    places = {"store": dataset.store.uri, "cache": tmp_path, "manifest": manifest, "split": split}
    dataset_id, split_id = dataset.manifest.dataset_id, dataset.split.split_id

    opened = SplitDataset.open(**places, dataset_id=dataset_id, split_id=split_id)

    assert (opened.manifest, opened.split) == (dataset.manifest, dataset.split)
    with pytest.raises(UserError, match="is not data set other"):
        SplitDataset.open(**places, dataset_id="other", split_id=split_id)
    with pytest.raises(UserError, match=f"is split {split_id}, not other"):
        SplitDataset.open(**places, dataset_id=dataset_id, split_id="other")


@given(st.integers(1, 30), st.integers(1, 5))
def test_ranked_patients_are_shown_once_and_in_order(make_patients, total, count):
    scores = make_patients(total)  # the later, the better

    picks = ranked_volumes(scores, count)

    shown = [name for names in picks.values() for name in names]
    assert list(picks) == ["best", "median", "worst"]
    assert shown == sorted(set(shown), reverse=True)
    assert picks["worst"][-1] == "v00"
    assert all(len(names) <= count for names in picks.values())
    if total >= 3:
        assert picks["best"][0] == f"v{total - 1:02}"
        assert len({len(names) for names in picks.values()}) == 1
    if total >= 3 * count:
        assert len(shown) == 3 * count
        assert scores[total // 2].volume in picks["median"]
