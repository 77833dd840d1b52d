"""Features of bodies whose shape is known, on grids of several spacings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.radiogenomics.shape import FEATURES, measure_shape

SPACINGS = ((1.0, 1.0, 1.0), (1.0, 0.5, 0.5), (5.0, 1.0, 1.0), (4.0, 1.0, 1.5))


def grid(spacing, offset=(0.3, 0.2, 0.1), reach=45):
    axes = [
        (np.arange(-int(reach / step), int(reach / step) + 1) + shift) * step
        for step, shift in zip(spacing, offset, strict=True)
    ]
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def ellipsoid(spacing, half=(30, 30, 30), **where):
    z, y, x = grid(spacing, **where)
    return (z / half[0]) ** 2 + (y / half[1]) ** 2 + (x / half[2]) ** 2 < 1


def star(spacing, arms=6, depth=0.25):
    """A cylinder with a wavy outline, r = 30 (1 + depth cos(arms angle))."""
    z, y, x = grid(spacing)
    return (np.hypot(y, x) < 30 * (1 + depth * np.cos(arms * np.arctan2(y, x)))) & (abs(z) < 20)


def wave(arms, depth):
    """Angular deviation and fluctuation of the outline itself, from points along it."""
    angles = np.linspace(0, 2 * np.pi, 200_001)
    radii = 30 * (1 + depth * np.cos(arms * angles))
    points = radii * np.exp(1j * angles)
    places = np.append(0, np.abs(np.diff(points)).cumsum())
    places /= places[-1]
    equal = np.linspace(0, 1, 20_000, endpoint=False)
    along = np.interp(equal, places, radii)
    along /= along.mean()
    at = np.interp(equal, places, angles)
    sectors = (at / (2 * np.pi) * 10).astype(int) % 10
    tripled = np.tile(along, 3)
    sums = np.cumsum(np.append(0, tripled))
    starts = np.arange(20_000) + 20_000 - 1_000
    smooth = (sums[starts + 2_000] - sums[starts]) / 2_000
    deviation = np.mean([along[sectors == sector].std() for sector in range(10)])
    return deviation, (along - smooth).std()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_ball_fills_its_ellipsoid_and_has_an_even_margin(spacing):
    found = measure_shape(ellipsoid(spacing), spacing)
    assert found["ellipsoid_ratio"] == pytest.approx(1, abs=0.01)
    assert found["angular_sd"] < 0.02
    assert found["margin_fluctuation"] < 0.02


@pytest.mark.parametrize("spacing", SPACINGS)
def test_an_ellipsoid_fills_its_ellipsoid_and_has_an_uneven_margin(spacing):
    found = measure_shape(ellipsoid(spacing, half=(20, 40, 20)), spacing)
    assert found["ellipsoid_ratio"] == pytest.approx(1, abs=0.02)
    assert 0.06 < found["angular_sd"] < 0.11
    assert found["margin_fluctuation"] < 0.03


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("arms", "depth"), [(5, 0.3), (12, 0.12)])
def test_the_margin_of_a_star_is_that_of_its_formula(spacing, arms, depth):
    found = measure_shape(star(spacing, arms, depth), spacing)
    deviation, fluctuation = wave(arms, depth)
    assert found["angular_sd"] == pytest.approx(deviation, rel=0.05)
    assert found["margin_fluctuation"] == pytest.approx(fluctuation, rel=0.05)


def test_the_ellipsoid_of_a_box_is_that_of_its_corners():
    box = np.pad(np.ones((41, 61, 51), bool), 2)
    # the smallest ellipsoid around a box has the box's half sides, times the root of 3
    expected = box.sum() / (4 / 3 * np.pi * np.sqrt(27) * 20 * 30 * 25)
    assert measure_shape(box)["ellipsoid_ratio"] == pytest.approx(expected, rel=0.003)


def test_the_distance_of_slices_changes_nothing():
    mask = star((5.0, 1.0, 1.0))
    assert measure_shape(mask, (5.0, 1.0, 1.0)) == measure_shape(mask, (1.0, 1.0, 1.0))


@settings(max_examples=settings.default.max_examples // 4)
@given(
    half=st.tuples(*[st.floats(12, 30)] * 3),
    offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    spacing=st.tuples(st.floats(1, 4), st.floats(0.7, 1.5), st.floats(0.7, 1.5)),
)
def test_the_grid_hardly_matters(half, offset, spacing):
    one = measure_shape(ellipsoid(spacing, half, offset=offset), spacing)
    fine = measure_shape(ellipsoid((2.0, 0.6, 0.6), half), (2.0, 0.6, 0.6))
    assert one["ellipsoid_ratio"] == pytest.approx(fine["ellipsoid_ratio"], abs=0.06)
    assert one["angular_sd"] == pytest.approx(fine["angular_sd"], abs=0.03)
    assert one["margin_fluctuation"] == pytest.approx(fine["margin_fluctuation"], abs=0.03)


@settings(max_examples=settings.default.max_examples // 3)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_any_mask_is_measured(seed, density):
    mask = np.random.default_rng(seed).random((4, 7, 6)) < density
    found = measure_shape(mask, (3.0, 1.0, 2.0))
    assert set(found) == set(FEATURES)
    assert all(value is None or value >= 0 for value in found.values())
    larger = measure_shape(np.pad(mask, 3), (6.0, 2.0, 4.0))
    assert found == pytest.approx(larger, nan_ok=False)


def test_only_the_largest_part_counts():
    mask = ellipsoid((1.0, 1.0, 1.0), half=(12, 15, 10))
    more = mask.copy()
    more[0, :4, :4] = True
    assert measure_shape(more) == measure_shape(mask)


def test_an_empty_mask_has_no_shape_and_a_flat_one_no_ellipsoid():
    mask = np.zeros((3, 20, 20), bool)
    assert set(measure_shape(mask).values()) == {None}
    mask[1, 4:12, 5:14] = True
    found = measure_shape(mask)
    assert found["ellipsoid_ratio"] is None
    assert found["angular_sd"] > 0
