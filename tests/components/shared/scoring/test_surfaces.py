import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from components.shared.scoring.surfaces import surface_distances_mm

SPACING_MM = (5.0, 1.0, 2.0)


def blobs(seed):
    """A smooth blob, and a second one that mostly agrees with it."""
    random = np.random.default_rng(seed)
    shape = (12, 40, 40)
    place = np.moveaxis(np.indices(shape), 0, -1)
    height = np.exp(-(((place - (6, 20, 20)) / (3, 10, 12)) ** 2).sum(axis=-1))
    noise, other = (gaussian_filter(random.normal(size=shape), (1, 3, 3)) for _ in range(2))
    return height + 5 * other > 0.4, height + 5 * noise > 0.4


@pytest.mark.parametrize(("axis", "step_mm"), list(enumerate(SPACING_MM)))
def test_distances_are_in_millimeters_along_each_axis(axis, step_mm):
    # single voxels two steps apart; the eight pieces of each surface are half a step around it
    truth, predicted = np.zeros((2, 4, 4, 4), dtype=bool)
    truth[0, 0, 0] = predicted[tuple(2 * np.eye(3, dtype=int)[axis])] = True

    found = surface_distances_mm(predicted, truth, SPACING_MM)

    assert found.hd95 == pytest.approx(2 * step_mm)
    assert found.mean == pytest.approx(1.5 * step_mm)
    assert [found.within(limit * step_mm + 1e-9) for limit in (0.9, 1, 2)] == [0, 0.5, 1]


def test_area_counts_not_the_number_of_pixels():
    # a cuboid of 50 x 40 x 60 mm: its edges are cut off, which takes a little of the area
    mask = np.zeros((12, 42, 32), dtype=bool)
    mask[1:11, 1:41, 1:31] = True

    found = surface_distances_mm(mask, mask, SPACING_MM)

    assert found.truth_areas.sum() == found.prediction_areas.sum()
    assert found.truth_areas.sum() == pytest.approx(2 * (50 * 40 + 50 * 60 + 40 * 60), rel=0.04)


@pytest.mark.parametrize("empty", ["prediction", "truth", "both"])
def test_nothing_is_near_an_empty_mask(empty):
    nothing, everything = np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool)
    predicted = everything if empty == "truth" else nothing
    truth = everything if empty == "prediction" else nothing

    found = surface_distances_mm(predicted, truth, SPACING_MM)

    assert found.hd95 is found.mean is None
    assert found.within(1e9) == (empty == "both")


# by github.com/google-deepmind/surface-distance at 1f805ce: compute_robust_hausdorff (95),
# compute_average_surface_distance (both directions by area), compute_surface_dice_at_tolerance (2)
@pytest.mark.parametrize(
    ("seed", "spacing_mm", "hd95", "assd", "within_2"),
    [
        (0, (5.5, 0.9, 0.9), 7.9152, 2.8787, 0.4564),
        (1, (1, 1, 1), 6.4031, 1.98, 0.6096),
        (2, (3, 0.5, 0.8), 6.7052, 2.2499, 0.5338),
        (3, (6.5, 0.78, 0.78), 7.8389, 2.4895, 0.5217),
    ],
)
def test_agrees_with_surface_distance(seed, spacing_mm, hd95, assd, within_2):
    found = surface_distances_mm(*blobs(seed), spacing_mm)

    # its areas are those of triangles, 2 to 3 % larger where the surface bends
    assert found.hd95 == pytest.approx(hd95, rel=0.02)
    assert found.mean == pytest.approx(assd, rel=0.01)
    assert found.within(2) == pytest.approx(within_2, abs=0.005)
