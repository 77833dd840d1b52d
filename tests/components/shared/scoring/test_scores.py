import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import DiceMetric, compute_hausdorff_distance

from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.volumes import Volume
from components.shared.errors import UserError
from components.shared.scoring.groups import group, size_thirds
from components.shared.scoring.metrics import BASELINE_SUFFIX, BASELINED, DEFINITIONS, aggregate
from components.shared.scoring.scores import (
    BINS,
    PatientScore,
    calibration_curve,
    empty_score,
    score_volume,
)
from components.shared.scoring.table import read_patient_scores, write_patient_scores
from components.shared.scoring.voxels import hausdorff_95, inside_head

SHAPE = (3, 6, 5)
PROBABILITIES = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
MASKS = arrays(np.uint8, SHAPE, elements=st.integers(0, 1))
FAST = settings(max_examples=60, deadline=None)  # the first call of MONAI is slow


def entry(name="TCGA_CS_0001_20000101"):
    return VolumeEntry(
        volume=name,
        patient=name.rsplit("_", 1)[0],
        site=name.split("_")[1],
        date="20000101",
        digest="",
        image_digest="",
        slices=0,
        height=0,
        width=0,
        tumour_pixels=0,
        tumour_slices=0,
        missing=(),
        intensity=(),
        attributes={},
    )


def score(truth, probability, name="TCGA_CS_0001_20000101", image=None, threshold=0.5):
    mask = np.asarray(truth, dtype=np.uint8)
    if image is None:
        image = np.full((*mask.shape, 3), 100, dtype=np.uint8)
    return score_volume(
        entry(name), Volume(image, mask), np.asarray(probability, dtype=np.float32), threshold
    )


def some_scores(count=7, seed=0):
    random = np.random.default_rng(seed)
    scores = []
    for index in range(count):
        truth = random.random(SHAPE) < 0.1 * index
        probability = np.clip(truth * 0.6 + random.random(SHAPE) * 0.6, 0, 1)
        site = ("CS", "DU", "HT")[index % 3]
        scores.append(score(truth, probability, f"TCGA_{site}_000{index}_20000101"))
    return scores


def test_scores_a_case_computed_by_hand():
    truth = np.zeros((3, 4, 4))
    truth[0, 0, :4] = 1  # 4 pixels, 3 found
    truth[1, 1, 1] = 1  # 1 pixel, missed
    probability = np.full((3, 4, 4), 0.1)
    probability[0, 0, 1:] = 0.5  # the threshold itself counts as tumour
    probability[2, 3, 3] = 0.9  # a false positive in an empty slice

    found = score(truth, probability)

    assert (found.tumour_pixels, found.predicted_pixels, found.true_positives) == (5, 4, 3)
    assert (found.slices, found.tumour_slices, found.false_positive_pixels) == (3, 2, 1)
    assert found.dice == pytest.approx(2 * 3 / 9)
    assert found.precision == pytest.approx(3 / 4)
    assert found.recall == pytest.approx(3 / 5)
    assert found.slice_dice == pytest.approx((6 / 7, 0, 0))
    assert found.slice_has_tumour == (True, True, False)


def test_a_patient_without_tumour_counts_1_if_left_empty_else_0():
    nothing = np.zeros(SHAPE)
    one = nothing.copy()
    one[0, 0, 0] = 1

    left_empty, marked = score(nothing, nothing), score(nothing, one)

    assert (left_empty.dice, marked.dice) == (1, 0)
    assert (left_empty.precision, left_empty.recall, left_empty.hd95) == (None, None, None)
    assert (marked.precision, marked.recall, marked.hd95) == (0, None, None)
    assert score(one, nothing).recall == 0


@pytest.mark.parametrize(
    ("other", "distance"),
    [((0, 3, 4), 5), ((2, 0, 0), 2), ((1, 2, 2), 3), ((0, 0, 0), 0)],
    ids=["in a slice", "a slice step is one pixel", "across slices", "same place"],
)
def test_hd95_of_two_pixels_is_their_distance(other, distance):
    truth, predicted = np.zeros((2, 3, 6, 6), dtype=bool)
    truth[0, 0, 0] = predicted[other] = True

    assert hausdorff_95(predicted, truth) == pytest.approx(distance)


def test_hd95_is_the_larger_direction_and_a_percentile():
    # 39 of 41 pixels of the prediction lie on the line of truth, two stand 10 and 20 away;
    # numpy's percentile of these distances says what MONAI must find
    truth, predicted = np.zeros((2, 1, 30, 60), dtype=bool)
    truth[0, 0, :39] = predicted[0, 0, :39] = True
    predicted[0, 10, 0] = predicted[0, 20, 0] = True

    expected = np.percentile([0] * 39 + [10, 20], 95)

    assert hausdorff_95(predicted, truth) == pytest.approx(expected)
    assert hausdorff_95(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_monai_on_the_whole_volume(seed):
    random = np.random.default_rng(seed)
    truth, predicted = np.zeros((2, 6, 40, 30), dtype=bool)
    for mask in (truth, predicted):
        z, y, x = random.integers(0, (3, 20, 15))
        mask[z : z + 3, y : y + 12, x : x + 9] = True
        mask ^= random.random(mask.shape) < 0.01
    one_hot = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]

    found = score(truth, predicted)

    dice = DiceMetric(include_background=True)
    dice(*one_hot)
    distance = compute_hausdorff_distance(*one_hot, include_background=True, percentile=95)
    assert found.dice == pytest.approx(dice.aggregate().item(), abs=1e-6)
    assert found.hd95 == pytest.approx(distance.item(), abs=1e-5)


@FAST
@given(MASKS, MASKS)
def test_dice_and_hd95_are_symmetric_and_bounded(one, other):
    forth, back = score(one, other), score(other, one)

    assert forth.dice == back.dice
    assert forth.precision == back.recall
    assert 0 <= forth.dice <= 1
    assert (forth.hd95 is None) == (back.hd95 is None) == (not one.any() or not other.any())
    if forth.hd95 is not None:
        assert forth.hd95 == pytest.approx(back.hd95)
        assert 0 <= forth.hd95 <= math.dist((0, 0, 0), SHAPE)
        assert (forth.dice == 1) <= (forth.hd95 == 0)


@FAST
@given(MASKS, PROBABILITIES)
def test_the_baseline_is_what_a_probability_of_zero_scores(truth, probability):
    found, zero = score(truth, probability), score(truth, np.zeros(SHAPE))

    assert empty_score(found) == zero
    alone, expected = aggregate([found]), aggregate([zero])
    for name in BASELINED:
        assert alone.get(name + BASELINE_SUFFIX) == expected.get(name)


@FAST
@given(st.lists(st.tuples(MASKS, PROBABILITIES), min_size=1, max_size=4))
def test_aggregates_are_consistent_and_hold_no_nan(pairs):
    scores = [score(truth, probability) for truth, probability in pairs]

    found = aggregate(scores, resamples=100)

    json.dumps(found, allow_nan=False)
    assert all(type(value) is float for value in found.values())
    assert {name.removesuffix(BASELINE_SUFFIX) for name in found} <= set(DEFINITIONS)
    dice = [one.dice for one in scores]
    assert min(dice) <= found["patient_dice_mean"] + 1e-12
    assert found["patient_dice_mean"] <= max(dice) + 1e-12
    assert 0 <= found["pooled_dice"] <= 1
    for name in ("precision", "recall", "hd95"):
        values = [value for one in scores if (value := getattr(one, name)) is not None]
        assert found[f"{name}_undefined"] == len(scores) - len(values)
        assert (f"{name}_mean" in found) == bool(values)
    if len(scores) > 1:
        assert found["patient_dice_mean_ci_low"] <= found["patient_dice_mean_ci_high"]
    assert (len(scores) > 1) == ("patient_dice_mean_ci_low" in found)


@FAST
@given(MASKS, MASKS, MASKS, MASKS)
def test_pooled_dice_is_the_dice_of_the_volumes_joined(truth, predicted, truth_2, predicted_2):
    joined = score(np.concatenate([truth, truth_2]), np.concatenate([predicted, predicted_2]))

    found = aggregate([score(truth, predicted), score(truth_2, predicted_2)])

    assert found["pooled_dice"] == joined.dice
    assert found["slice_dice_mean"] == pytest.approx(np.mean(joined.slice_dice))


def test_aggregates_two_patients_by_hand():
    truth = np.zeros((2, 2, 4))
    truth[0, 0] = 1
    half = truth * [1, 1, 0, 0]  # Dice 2/3
    one = np.zeros((2, 2, 4))
    one[1, 1, 1] = 1

    found = aggregate([score(truth, half), score(np.zeros((2, 2, 4)), one)])

    assert found["patient_dice_mean"] == pytest.approx(1 / 3)
    assert found["patient_dice_median"] == pytest.approx(1 / 3)
    assert found["pooled_dice"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["tumour_slice_dice_mean"] == pytest.approx(2 / 3)
    assert found["slice_dice_mean"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    assert found["false_positive_pixels_mean"] == pytest.approx(0.5)
    assert found["precision_mean"] == pytest.approx(0.5)
    assert (found["recall_mean"], found["recall_undefined"]) == (0.5, 1)
    # all-empty: 0 on the patient with tumour, 1 on the other; three of four slices are empty
    assert found["patient_dice_mean_empty_baseline"] == pytest.approx(0.5)
    assert found["slice_dice_mean_empty_baseline"] == pytest.approx(3 / 4)
    assert found["tumour_slice_dice_mean_empty_baseline"] == 0
    assert found["pooled_dice_empty_baseline"] == 0


def test_the_interval_of_equal_scores_is_a_point():
    truth = np.ones(SHAPE)

    found = aggregate([score(truth, truth)] * 4)

    assert found["patient_dice_mean_ci_low"] == found["patient_dice_mean_ci_high"] == 1


def test_the_interval_is_seeded_and_covers_the_mean():
    scores = some_scores()

    first, again, other = (aggregate(scores, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    low, high = first["patient_dice_mean_ci_low"], first["patient_dice_mean_ci_high"]
    dice = [one.dice for one in scores]
    assert min(dice) < low < first["patient_dice_mean"] < high < max(dice)


def test_calibration_by_hand():
    # ten voxels at 0.25, three of them tumour; ten at 1, all tumour
    probability = np.array([0.25] * 10 + [1.0] * 10).reshape(1, 4, 5)
    truth = np.array([1] * 3 + [0] * 7 + [1] * 10).reshape(1, 4, 5)

    found = score(truth, probability)

    assert found.reliability.voxels == (0, 0, 10, 0, 0, 0, 0, 0, 0, 10)
    assert found.reliability.tumour == (0, 0, 3, 0, 0, 0, 0, 0, 0, 10)
    numbers = aggregate([found])
    assert numbers["calibration_error"] == pytest.approx(0.05 * 10 / 20)
    assert numbers["brier_score"] == pytest.approx((3 * 0.75**2 + 7 * 0.25**2) / 20)
    assert numbers["brier_score_empty_baseline"] == pytest.approx(13 / 20)


@FAST
@given(MASKS, PROBABILITIES, MASKS, PROBABILITIES)
def test_calibration_adds_up_over_volumes(truth, probability, truth_2, probability_2):
    joined = score(np.concatenate([truth, truth_2]), np.concatenate([probability, probability_2]))

    found = calibration_curve([score(truth, probability), score(truth_2, probability_2)])

    assert found.voxels == joined.reliability.voxels
    assert found.tumour == joined.reliability.tumour
    assert sum(found.voxels) == truth.size * 2
    assert len(found.voxels) == BINS
    assert found.probability == pytest.approx(joined.reliability.probability)
    assert found.squared_error == pytest.approx(joined.reliability.squared_error)


def test_calibration_leaves_the_noisy_background_out():
    image = np.full((2, 8, 8, 3), 5, dtype=np.uint8)  # noise, in all channels
    image[:, 4:] = 120

    assert inside_head(image).sum() == 2 * 4 * 8
    assert (
        sum(score(np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), image=image).reliability.voxels) == 64
    )


def test_an_image_without_a_head_has_no_calibration():
    found = aggregate([score(np.zeros(SHAPE), np.zeros(SHAPE), image=np.zeros((*SHAPE, 3), "u1"))])

    assert "brier_score" not in found
    assert "calibration_error_empty_baseline" not in found


def test_size_thirds_are_by_rank_and_ties_by_name():
    scores = some_scores(6)
    sizes = size_thirds(list(reversed(scores)))

    assert size_thirds(scores) == sizes
    by_size = sorted(scores, key=lambda one: one.tumour_pixels)
    thirds = [sizes[one.volume] for one in by_size]
    assert thirds == ["small"] * 2 + ["medium"] * 2 + ["large"] * 2
    empty = [score(np.zeros(SHAPE), np.zeros(SHAPE), f"TCGA_CS_000{n}_1") for n in (2, 0, 1)]
    assert size_thirds(empty) == {
        "TCGA_CS_0000_1": "small",
        "TCGA_CS_0001_1": "medium",
        "TCGA_CS_0002_1": "large",
    }


def test_every_patient_is_in_one_site_and_one_size():
    scores = some_scores(7)

    groups = group(scores)

    assert list(groups) == [
        "site/CS",
        "site/DU",
        "site/HT",
        "size/small",
        "size/medium",
        "size/large",
    ]
    for kind in ("site/", "size/"):
        names = [one.volume for key, some in groups.items() if key.startswith(kind) for one in some]
        assert sorted(names) == [one.volume for one in sorted(scores, key=lambda one: one.volume)]
    assert list(group(scores[:1])) == ["site/CS", "size/small"]


def test_scores_survive_the_csv(tmp_path):
    scores = some_scores()
    path = tmp_path / "per_patient.csv"

    write_patient_scores(scores, path)

    found = read_patient_scores(path)
    names = list(PatientScore.__dataclass_fields__)
    assert [[getattr(one, name) for name in names] for one in found] == [
        [getattr(one, name) for name in names] for one in scores
    ]
    assert [(one.dice, one.precision, one.recall) for one in found] == [
        (one.dice, one.precision, one.recall) for one in scores
    ]


def test_the_csv_has_the_promised_columns_and_blanks_for_undefined(tmp_path):
    path = tmp_path / "per_patient.csv"

    write_patient_scores([score(np.zeros(SHAPE), np.zeros(SHAPE))], path)

    with open(path, newline="") as stream:
        (row,) = csv.DictReader(stream)
    first = ["volume", "patient", "site", "slices", "tumour_pixels"]
    assert list(row)[:9] == [*first, "dice", "precision", "recall", "hd95"]
    assert (row["patient"], row["dice"], row["size_third"]) == ("TCGA_CS_0001", "1.0", "small")
    assert (row["precision"], row["recall"], row["hd95"]) == ("", "", "")
    assert "nan" not in path.read_text().lower()


@pytest.mark.parametrize("text", ["volume,dice\na,0.5\n", "<html></html>\nx\n"])
def test_a_file_that_is_no_table_of_scores_is_named(tmp_path, text):
    path = tmp_path / "scores.csv"
    path.write_text(text)

    with pytest.raises(UserError, match=r"scores\.csv is not a table of patient scores"):
        read_patient_scores(path)
