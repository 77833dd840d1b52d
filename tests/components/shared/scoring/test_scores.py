import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.shared.scoring.scores import BINS, calibration_curve

SHAPE = (3, 6, 5)
PROBABILITIES = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
MASKS = arrays(np.uint8, SHAPE, elements=st.integers(0, 1))


def test_scores_a_case_computed_by_hand(score):
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
    assert found.volume_difference_pixels == 1
    assert found.relative_volume_difference == pytest.approx(1 / 5)
    # all nine pixels are surface; only the false positive is further than 2 from the other mask
    assert found.surface_dice == pytest.approx(8 / 9)


def test_too_much_and_too_little_are_the_same_volume_difference(score):
    less, more = np.zeros((2, *SHAPE))
    less[1, 2, :2] = more[1, 2, :5] = 1

    over, under = score(less, more), score(more, less)

    assert (over.volume_difference_pixels, under.volume_difference_pixels) == (3, 3)
    assert over.relative_volume_difference == pytest.approx(3 / 2)
    assert under.relative_volume_difference == pytest.approx(3 / 5)


def test_sizes_and_distances_in_millimeters(score):
    truth, probability = np.zeros((2, 5, 8, 8))
    truth[1, 2:4, 2:4] = 1
    probability[3, 2:4, 2:5] = 1

    found = score(truth, probability, spacing_mm=(5.0, 2.0, 2.0))

    assert found.tumour_ml == pytest.approx(4 * 20 / 1000)
    assert found.predicted_ml == pytest.approx(6 * 20 / 1000)
    assert found.volume_difference_ml == pytest.approx(2 * 20 / 1000)
    assert 5 < found.assd_mm < 10 < found.hd95_mm < 11
    assert found.surface_dice_2mm == 0
    assert (found.empty.predicted_ml, found.empty.hd95_mm, found.empty.surface_dice_2mm) == (
        *(0, None, 0),
    )
    pixels = score(truth, probability)
    assert found.hd95 == pixels.hd95
    assert pixels.tumour_ml is pixels.hd95_mm is pixels.surface_dice_2mm is None


def test_a_patient_without_tumour_counts_1_if_left_empty_else_0(score):
    nothing = np.zeros(SHAPE)
    one = nothing.copy()
    one[0, 0, 0] = 1

    left_empty, marked = score(nothing, nothing), score(nothing, one)

    assert (left_empty.dice, marked.dice) == (1, 0)
    assert (left_empty.surface_dice, marked.surface_dice) == (1, 0)
    assert (left_empty.precision, left_empty.recall, left_empty.hd95) == (None, None, None)
    assert (marked.precision, marked.recall, marked.hd95) == (0, None, None)
    assert (left_empty.volume_difference_pixels, marked.volume_difference_pixels) == (0, 1)
    assert left_empty.relative_volume_difference is marked.relative_volume_difference is None
    assert score(one, nothing).recall == 0


@given(MASKS, MASKS)
def test_dice_and_surfaces_are_symmetric_and_bounded(score, one, other):
    forth, back = score(one, other), score(other, one)

    assert forth.dice == back.dice
    assert forth.precision == back.recall
    assert 0 <= forth.dice <= 1
    assert forth.surface_dice == back.surface_dice
    assert 0 <= forth.surface_dice <= 1
    assert (forth.dice == 1) <= (forth.surface_dice == 1)
    assert forth.volume_difference_pixels == back.volume_difference_pixels
    assert (forth.hd95 is None) == (back.hd95 is None) == (not one.any() or not other.any())
    if forth.hd95 is not None:
        assert forth.hd95 == pytest.approx(back.hd95)
        assert 0 <= forth.hd95 <= math.dist((0, 0, 0), SHAPE)
        assert (forth.dice == 1) <= (forth.hd95 == 0)


@given(MASKS, PROBABILITIES)
def test_the_empty_score_is_what_a_probability_of_zero_scores(score, truth, probability):
    found, zero = score(truth, probability), score(truth, np.zeros(SHAPE))

    assert found.empty == dataclasses.replace(zero, empty=None)
    assert zero.empty == found.empty


def test_reliability_by_hand(score):
    # ten voxels at 0.25, three of them tumour; ten at 1, all tumour
    probability = np.array([0.25] * 10 + [1.0] * 10).reshape(1, 4, 5)
    truth = np.array([1] * 3 + [0] * 7 + [1] * 10).reshape(1, 4, 5)

    found = score(truth, probability).reliability

    assert found.voxels == (0, 0, 10, 0, 0, 0, 0, 0, 0, 10)
    assert found.tumour == (0, 0, 3, 0, 0, 0, 0, 0, 0, 10)
    assert found.probability == pytest.approx((0, 0, 2.5, 0, 0, 0, 0, 0, 0, 10))
    assert found.squared_error == pytest.approx(3 * 0.75**2 + 7 * 0.25**2)


@given(MASKS, PROBABILITIES, MASKS, PROBABILITIES)
def test_calibration_adds_up_over_volumes(score, truth, probability, truth_2, probability_2):
    joined = score(np.concatenate([truth, truth_2]), np.concatenate([probability, probability_2]))

    found = calibration_curve([score(truth, probability), score(truth_2, probability_2)])

    assert found.voxels == joined.reliability.voxels
    assert found.tumour == joined.reliability.tumour
    assert sum(found.voxels) == truth.size * 2
    assert len(found.voxels) == BINS
    assert found.probability == pytest.approx(joined.reliability.probability)
    assert found.squared_error == pytest.approx(joined.reliability.squared_error)


def test_calibration_leaves_the_noisy_background_out(score):
    image = np.full((2, 8, 8, 3), 5, dtype=np.uint8)  # noise, in all channels
    image[:, 4:] = 120

    found = score(np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), image=image)

    assert sum(found.reliability.voxels) == 2 * 4 * 8
