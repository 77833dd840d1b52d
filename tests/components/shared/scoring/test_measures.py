import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.shared.scoring.measures import (
    brier_score,
    calibration_error,
    mean,
    median,
    pooled_dice,
    slice_dice,
    tumour_slice_dice,
    undefined,
)

SHAPE = (3, 6, 5)
MASKS = arrays(np.uint8, SHAPE, elements=st.integers(0, 1))


@given(MASKS, MASKS, MASKS, MASKS)
def test_pooled_dice_is_the_dice_of_the_volumes_joined(
    score, truth, predicted, truth_2, predicted_2
):
    joined = score(np.concatenate([truth, truth_2]), np.concatenate([predicted, predicted_2]))

    scores = [score(truth, predicted), score(truth_2, predicted_2)]

    assert pooled_dice(scores) == joined.dice
    assert slice_dice(scores) == pytest.approx(np.mean(joined.slice_dice))


def test_slices_with_tumour_are_those_of_the_truth(score):
    truth, predicted = np.zeros((2, 3, 2, 4))
    truth[0, 0] = 1
    predicted[0, 0, :2] = predicted[1, 1, 1] = 1

    scores = [score(truth, predicted)]

    assert tumour_slice_dice(scores) == pytest.approx(2 / 3)
    assert slice_dice(scores) == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert tumour_slice_dice([score(np.zeros(SHAPE), np.zeros(SHAPE))]) is None


def test_a_mean_leaves_out_whom_it_is_not_defined_for(make_patient_score):
    scores = [make_patient_score(f"v{n}", 1, 1, hd95=hd95) for n, hd95 in enumerate((9, None, 2))]
    scores += [make_patient_score("v3", 1, 1, hd95=1.0)]

    assert mean(lambda one: one.hd95)(scores) == 4
    assert median(lambda one: one.hd95)(scores) == 2
    assert undefined(lambda one: one.hd95)(scores) == 1
    assert mean(lambda one: one.hd95)(scores[1:2]) is None
    assert median(lambda one: one.hd95)(scores[1:2]) is None


def test_calibration_by_hand(score):
    # ten voxels at 0.25, three of them tumour; ten at 1, all tumour
    probability = np.array([0.25] * 10 + [1.0] * 10).reshape(1, 4, 5)
    truth = np.array([1] * 3 + [0] * 7 + [1] * 10).reshape(1, 4, 5)

    scores = [score(truth, probability)]

    assert calibration_error(scores) == pytest.approx((0.05 + 0) / 2)
    assert brier_score(scores) == pytest.approx((3 * 0.75**2 + 7 * 0.25**2) / 20)


def test_air_does_not_hide_a_wrong_probability(score):
    """Of 2,000 voxels of air and 10 that are tumour at 0.55."""
    probability = np.array([0.0] * 2000 + [0.55] * 10).reshape(1, 10, 201)
    truth = np.array([0] * 2000 + [1] * 10).reshape(1, 10, 201)
    assert calibration_error([score(truth, probability)]) == pytest.approx((0 + 0.45) / 2)


def test_an_image_without_a_head_has_no_calibration(score):
    scores = [score(np.zeros(SHAPE), np.zeros(SHAPE), image=np.zeros((*SHAPE, 3), "u1"))]

    assert calibration_error(scores) is None
    assert brier_score(scores) is None
