import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.metrics import (
    BASELINE_SUFFIX,
    HIGH_SUFFIX,
    LOW_SUFFIX,
    METRICS,
    aggregate,
    aggregate_targets,
    interval_in_words,
    known_metrics,
    of_target,
)
from components.shared.scoring.scores import BINS, PATIENT_FIGURES, Reliability, VolumeScore
from tests.components.conftest import count_masks

SHAPE = (3, 6, 5)
PROBABILITIES = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
MASKS = arrays(np.uint8, SHAPE, elements=st.integers(0, 1))

NAMES = {metric.name for metric in METRICS}


def names_of(metric):
    """Under which names a metric can be found."""
    suffixes = [BASELINE_SUFFIX] * metric.baseline
    suffixes += [LOW_SUFFIX, HIGH_SUFFIX] * (metric.interval_of is not None)
    return {metric.name, *(metric.name + suffix for suffix in suffixes)}


def simulate_scores(count):
    """Scores of patients who were never predicted; those of 2 and 3 have undefined figures."""
    numbers = random.Random(count)
    return [simulate_score(numbers, index) for index in range(count)]


def simulate_score(numbers, index):
    has_tumour = tuple([numbers.random() < 0.4 and index != 2 for _ in range(5)])
    tumour = numbers.randrange(1, 5000) if any(has_tumour) else 0
    predicted = numbers.randrange(0, 5000) if index != 3 else 0
    true_positives = numbers.randrange(0, min(tumour, predicted) + 1)
    voxels = tuple([numbers.randrange(1000) for _ in range(BINS)])
    figures = {
        **figures_of(tumour, predicted, true_positives),
        "hd95": numbers.random() * 40 if tumour and predicted else None,
        "slice_dice": tuple([numbers.random() for _ in has_tumour]),
    }
    reliability = Reliability(
        voxels=voxels,
        probability=tuple([count * numbers.random() for count in voxels]),
        tumour=tuple([numbers.randrange(count + 1) for count in voxels]),
        squared_error=numbers.random() * sum(voxels),
    )
    common = {"slice_has_tumour": has_tumour, "volume": f"v{index}", "patient": f"p{index}"}
    empty = VolumeScore(
        site="CS",
        **common,
        **figures_of(tumour, 0, 0),
        slice_dice=tuple([float(not tumour) for tumour in has_tumour]),
        reliability=empty_reliability(reliability),
    )
    return VolumeScore(site="CS", **common, **figures, reliability=reliability, empty=empty)


def figures_of(tumour, predicted, true_positives):
    masks = count_masks(tumour, predicted, true_positives)
    return {name: figure.measure(masks) for name, figure in PATIENT_FIGURES.items()}


def empty_reliability(counts):
    nothing = (0,) * (BINS - 1)
    return Reliability(
        voxels=(sum(counts.voxels), *nothing),
        probability=(0.0,) * BINS,
        tumour=(sum(counts.tumour), *nothing),
        squared_error=float(sum(counts.tumour)),
    )


def test_the_rows_of_the_table_fit_together():
    found = [name for metric in METRICS for name in names_of(metric)]
    assert len(found) == len(set(found))
    assert {metric.undefined for metric in METRICS} <= NAMES | {""}
    assert all(metric.baseline for metric in METRICS if metric.champion_beats_baseline)
    assert len({metric.label for metric in METRICS}) == len(METRICS)


def test_numbers_are_what_they_have_always_been():
    # as 01d0a2e computed them, before there was a table
    before = {
        "brier_score": 0.6708196761244541,
        "brier_score_empty_baseline": 0.4922424955856386,
        "calibration_error": 0.10007413689234254,  # every bin counts alike since 0.3
        "calibration_error_empty_baseline": 0.4922424955856386,
        "false_positive_pixels_mean": 833.8888888888889,
        "hd95_mean": 14.192672942883428,
        "hd95_median": 8.250400236171382,
        "hd95_undefined": 3.0,
        "patient_dice_mean": 0.29214027836050427,
        "patient_dice_mean_empty_baseline": 0.2222222222222222,
        "patient_dice_median": 0.08361080281169071,
        "patient_dice_median_empty_baseline": 0.0,
        "patients": 9.0,
        "pooled_dice": 0.4593862316837158,
        "pooled_dice_empty_baseline": 0.0,
        "precision_mean": 0.40154705438676364,
        "precision_undefined": 1.0,
        "recall_mean": 0.3589122892560496,
        "recall_undefined": 2.0,
        "slice_dice_mean": 0.40596716011508255,
        "slice_dice_mean_empty_baseline": 0.6666666666666666,
        "tumour_slice_dice_mean": 0.41057115709998626,
        "tumour_slice_dice_mean_empty_baseline": 0.0,
    }

    now = aggregate(simulate_scores(9))

    assert {name: now[name] for name in before} == before


@given(MASKS, PROBABILITIES)
def test_the_baseline_is_what_a_probability_of_zero_scores(score, truth, probability):
    found = aggregate([score(truth, probability)])
    expected = aggregate([score(truth, np.zeros(SHAPE))])

    for metric in METRICS:
        alone = found.get(metric.name + BASELINE_SUFFIX)
        assert alone == (expected.get(metric.name) if metric.baseline else None)


@given(st.lists(st.tuples(MASKS, PROBABILITIES), min_size=1, max_size=4))
def test_aggregates_are_consistent_and_hold_no_nan(score, pairs):
    scores = [
        score(truth, probability, f"TCGA_CS_{number}_20000101")
        for number, (truth, probability) in enumerate(pairs)
    ]

    found = aggregate(scores)

    json.dumps(found, allow_nan=False)
    assert all(type(value) is float for value in found.values())
    assert set(found) <= {name for metric in METRICS for name in names_of(metric)}
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


def test_millimeters_need_the_geometry_of_every_volume(score):
    truth = np.zeros(SHAPE)
    truth[1, 2:4, 2:4] = 1
    known, unknown = score(truth, truth, spacing_mm=(5, 1, 1)), score(truth, truth)
    needing = {metric.name for metric in METRICS if metric.needs_geometry}

    both = aggregate([known, known])
    assert needing <= both.keys()
    assert both["surface_dice_2mm_mean"] == 1
    assert both["surface_dice_2mm_mean" + BASELINE_SUFFIX] == 0
    assert both["tumour_ml_mean"] == pytest.approx(0.02)
    assert both["volume_difference_ml_mean" + BASELINE_SUFFIX] == both["tumour_ml_mean"]
    assert known_metrics(both) == list(METRICS)
    # as if nothing were known of either
    assert aggregate([known, unknown]) == aggregate([unknown, unknown])
    assert {metric.name for metric in known_metrics(aggregate([unknown]))} == NAMES - needing


def test_a_metric_is_missing_only_with_as_many_patients_as_its_row_tells():
    found = aggregate(simulate_scores(9))
    without_tumour = aggregate(simulate_scores(3)[2:])

    for metric in known_metrics(found):
        assert metric.name in found
        if metric.undefined:
            assert found[metric.undefined] < 9
            gone = without_tumour[metric.undefined] == 1
            assert (metric.name in without_tumour) != gone


def test_aggregates_two_patients_by_hand(score):
    truth = np.zeros((2, 2, 4))
    truth[0, 0] = 1
    half = truth * [1, 1, 0, 0]  # Dice 2/3
    one = np.zeros((2, 2, 4))
    one[1, 1, 1] = 1

    other = score(np.zeros((2, 2, 4)), one, "TCGA_CS_0002_20000101")
    found = aggregate([score(truth, half), other])

    assert found["patient_dice_mean"] == pytest.approx(1 / 3)
    assert found["patient_dice_median"] == pytest.approx(1 / 3)
    assert found["pooled_dice"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["tumour_slice_dice_mean"] == pytest.approx(2 / 3)
    assert found["slice_dice_mean"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    assert found["false_positive_pixels_mean"] == pytest.approx(0.5)
    assert found["precision_mean"] == pytest.approx(0.5)
    assert (found["recall_mean"], found["recall_undefined"]) == (0.5, 1)
    # the row of four is within 2 pixels of its half; the second patient's pixel is near nothing
    assert found["surface_dice_mean"] == pytest.approx((1 + 0) / 2)
    assert found["volume_difference_pixels_mean"] == pytest.approx((2 + 1) / 2)
    assert found["relative_volume_difference_mean"] == pytest.approx(2 / 4)
    # all-empty: 0 on the patient with tumour, 1 on the other; three of four slices are empty
    assert found["patient_dice_mean_empty_baseline"] == pytest.approx(0.5)
    assert found["surface_dice_mean_empty_baseline"] == pytest.approx(0.5)
    assert found["slice_dice_mean_empty_baseline"] == pytest.approx(3 / 4)
    assert found["tumour_slice_dice_mean_empty_baseline"] == 0
    assert found["pooled_dice_empty_baseline"] == 0
    assert found["volume_difference_pixels_mean_empty_baseline"] == 2
    assert found["relative_volume_difference_mean_empty_baseline"] == 1
    assert found["brier_score_empty_baseline"] == pytest.approx(4 / 32)


def test_the_interval_of_equal_scores_is_a_point(score):
    truth = np.ones(SHAPE)

    names = [f"TCGA_CS_{number}_20000101" for number in range(4)]
    found = aggregate([score(truth, truth, name) for name in names])

    assert found["patient_dice_mean_ci_low"] == found["patient_dice_mean_ci_high"] == 1


def test_the_interval_is_that_of_the_dice_of_the_patients(some_scores):
    scores = some_scores()

    found = aggregate(scores)

    low, high = mean_interval([one.dice for one in scores])
    assert (found["patient_dice_mean_ci_low"], found["patient_dice_mean_ci_high"]) == (low, high)
    assert low < found["patient_dice_mean"] < high


def test_an_interval_is_told_in_words(some_scores):
    found = {"patient_dice_mean_ci_low": 0.77749, "patient_dice_mean_ci_high": 0.88051}

    assert interval_in_words(found) == "95 % interval 0.777 to 0.881"
    assert interval_in_words(aggregate(some_scores(1))) == "no interval: it takes two patients"


def test_further_targets_have_their_names_before_their_metrics(some_scores):
    whole, core = some_scores(), some_scores(seed=1)
    found = aggregate_targets({"whole": whole, "core": core})
    assert of_target("core", found) == aggregate(core)
    assert {name: found[name] for name in found if "/" not in name} == aggregate(whole)
    assert aggregate_targets({"whole": whole}) == aggregate(whole)
