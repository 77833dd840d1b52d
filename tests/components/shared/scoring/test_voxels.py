import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from components.shared.scoring.voxels import inside_head, surface_distances

PAIRS = array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def surface(mask):
    """Places of the pixels with a neighbour outside, one by one."""
    padded = np.pad(mask, 1)
    steps = [step for axis in np.eye(3, dtype=int) for step in (axis, -axis)]
    return [
        place
        for place in np.argwhere(padded)
        if not all(padded[tuple(place + step)] for step in steps)
    ]


def nearest(places, others):
    return [min((math.dist(one, other) for other in others), default=math.inf) for one in places]


@pytest.mark.parametrize(
    ("other", "distance"),
    [((0, 3, 4), 5), ((2, 0, 0), 2), ((1, 2, 2), 3), ((0, 0, 0), 0)],
    ids=["in a slice", "a slice step is one pixel", "across slices", "same place"],
)
def test_hd95_of_two_pixels_is_their_distance(other, distance):
    truth, predicted = np.zeros((2, 3, 6, 6), dtype=bool)
    truth[0, 0, 0] = predicted[other] = True

    found = surface_distances(predicted, truth)

    assert found.hd95 == distance
    assert [found.within(limit) for limit in (distance - 0.1, distance)] == [0, 1]


def test_hd95_is_the_larger_direction_and_a_percentile():
    # 39 of 41 pixels of the prediction lie on the line of truth, two stand 10 and 20 away
    truth, predicted = np.zeros((2, 1, 30, 60), dtype=bool)
    truth[0, 0, :39] = predicted[0, 0, :39] = True
    predicted[0, 10, 0] = predicted[0, 20, 0] = True

    expected = np.percentile([0] * 39 + [10, 20], 95)

    assert surface_distances(predicted, truth).hd95 == expected
    assert surface_distances(truth, predicted).hd95 == expected


def test_surface_dice_by_hand():
    # two squares of 5 x 5, one moved by 3 columns
    truth, predicted = np.zeros((2, 1, 9, 12), dtype=bool)
    truth[0, 2:7, 1:6] = predicted[0, 2:7, 4:9] = True
    truth, predicted = (np.repeat(mask, 3, axis=0) for mask in (truth, predicted))
    middle = np.s_[1:2]

    whole = surface_distances(predicted, truth)
    alone = surface_distances(predicted[middle], truth[middle])

    # of one slice every pixel is surface: 10 of 25 lie in the other square, 5 one away, 5 two
    assert [alone.within(limit) for limit in (0, 1, 2, 3)] == [10 / 25, 15 / 25, 20 / 25, 1]
    assert alone.hd95 == 3
    # of three slices the outer two have 25 surface pixels each, the middle one its rim of 16
    assert len(whole.from_prediction) == len(whole.from_truth) == 25 + 16 + 25
    assert whole.within(3) == 1
    assert whole.hd95 == 3


@pytest.mark.parametrize("empty", ["prediction", "truth"])
def test_nothing_is_near_an_empty_mask(empty):
    masks = {"prediction": np.ones((2, 3, 3), bool), "truth": np.ones((2, 3, 3), bool)}
    masks[empty] = np.zeros((2, 3, 3), bool)

    found = surface_distances(masks["prediction"], masks["truth"])

    assert found.hd95 is None
    assert found.within(1e9) == 0


def test_empty_masks_agree():
    nothing = np.zeros((2, 3, 3), bool)

    found = surface_distances(nothing, nothing)

    assert found.hd95 is None
    assert found.within(0) == 1


@given(PAIRS)
def test_distances_are_those_between_all_pixels_of_the_surfaces(masks):
    predicted, truth = masks
    ours, theirs = surface(predicted), surface(truth)

    found = surface_distances(predicted, truth)

    assert found.from_prediction.tolist() == pytest.approx(nearest(ours, theirs))
    assert found.from_truth.tolist() == pytest.approx(nearest(theirs, ours))


# by MONAI 1.6.1: compute_hausdorff_distance(percentile=95), compute_surface_dice with class
# thresholds 1 and 2, all include_background=True
@pytest.mark.parametrize(
    ("seed", "hd95", "within_1", "within_2"),
    [
        (0, 4.123105525970459, 0.2361111044883728, 0.5108024477958679),
        (1, 4.949489593505859, 0.3891472816467285, 0.5813953280448914),
        (2, 6.144001007080078, 0.16055046021938324, 0.35626912117004395),
        (3, 3.1622776985168457, 0.40832048654556274, 0.7796609997749329),
        (4, 4.358899116516113, 0.11094225198030472, 0.3571428656578064),
    ],
)
def test_agrees_with_monai(seed, hd95, within_1, within_2):
    random = np.random.default_rng(seed)
    truth, predicted = np.zeros((2, 6, 40, 30), dtype=bool)
    for mask in (truth, predicted):
        z, y, x = random.integers(0, (3, 20, 15))
        mask[z : z + 3, y : y + 12, x : x + 9] = True
        mask ^= random.random(mask.shape) < 0.01

    found = surface_distances(predicted, truth)

    assert found.hd95 == pytest.approx(hd95, abs=1e-5)
    assert found.within(1) == pytest.approx(within_1, abs=1e-6)
    assert found.within(2) == pytest.approx(within_2, abs=1e-6)


def test_the_noisy_background_is_not_inside_the_head():
    image = np.full((2, 8, 8, 3), 5, dtype=np.uint8)  # noise, in all channels
    image[:, 4:] = 120

    assert np.array_equal(inside_head(image[..., 1]), image[..., 1] == 120)
    # at any scale, such as after a z-score
    assert np.array_equal(inside_head(image[..., 1] / np.float32(9) - 7), image[..., 1] == 120)
