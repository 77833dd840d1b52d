"""Values of images and label maps."""

import numpy as np
import pytest

from components.shared.dataset.geometry import Geometry
from components.shared.reading.axial import AxialImage
from components.shared.reading.scans import BadScanError
from components.shared.reading.validation import check_image, label_map, stack_channels

GEOMETRY = Geometry.of_affine(np.eye(4))
NOISE = np.random.default_rng(0).integers(0, 900, (3, 8, 8))


def of(voxels, slope=1.0, dtype=np.int16):
    return AxialImage(np.asarray(voxels).astype(dtype), GEOMETRY, slope)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (of(np.full((3, 8, 8), 7)), "constant, all voxels are 7"),
        (of(np.where(NOISE > 800, np.nan, NOISE), dtype=np.float32), "NaN or infinite"),
        (of(np.where(np.eye(8) > 0, -500, 0) * np.ones((3, 1, 1))), "background at 0"),
    ],
)
def test_an_image_without_usable_values_is_refused(image, reason):
    with pytest.raises(BadScanError, match=reason):
        check_image(image, "T1")


def test_channels_are_int16_if_all_of_them_fit():
    assert stack_channels([of(NOISE), of(NOISE)]).dtype == np.int16
    mixed = stack_channels([of(NOISE), of(NOISE, slope=0.5)])
    assert mixed.dtype == np.float32
    assert np.array_equal(mixed[..., 1], NOISE * 0.5)


@pytest.mark.parametrize(
    ("values", "reason"), [([0, 0.4], "not whole, e.g. 0.4"), ([0, 3], "the undeclared value 3")]
)
def test_a_label_of_other_values_is_refused(values, reason):
    image = of(np.resize(values, (3, 8, 8)), dtype=np.float64)
    with pytest.raises(BadScanError, match=reason):
        label_map(image, {"core": 1, "edema": 2})


def test_rounding_of_a_scaled_label_is_accepted():
    image = of(np.resize([0, 0.9999999702, 2], (3, 8, 8)), dtype=np.float64)
    assert np.array_equal(label_map(image, {"a": 1, "b": 2}), np.resize([0, 1, 2], (3, 8, 8)))
