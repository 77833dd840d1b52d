import numpy as np
import pytest

from components.ingest.entry import describe_volume
from components.shared.dataset.volumes import Volume, encode_volume
from components.shared.reading.tcga import parse_scan_name

NAME = parse_scan_name("TCGA_CS_4941_19960909")


def describe(image, mask=None):
    mask = np.zeros(image.shape[:3], np.uint8) if mask is None else mask
    volume = Volume(image, mask)
    return describe_volume(NAME, volume, encode_volume(volume))


def noise(shape=(4, 16, 20, 3)):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_counts():
    mask = np.zeros((4, 16, 20), np.uint8)
    mask[1, 2:4, 5:8] = mask[3, 0, 0] = 1
    entry = describe(noise(), mask)
    assert (entry.slices, entry.height, entry.width) == (4, 16, 20)
    assert (entry.tumour_pixels, entry.tumour_slices) == (7, 2)
    assert (entry.patient, entry.site, entry.date) == ("TCGA_CS_4941", "CS", "19960909")


def test_intensity_is_that_of_every_fourth_row_and_column():
    image = np.zeros((1, 40, 40, 3), np.uint8)
    image[0, ::4, ::4, 0] = np.arange(100).reshape(10, 10)
    image[0, 1::4, 1::4, 0] = 255  # between the sampled ones
    found = describe(image).intensity[0]
    assert (found.mean, found.p1, found.p50, found.p99) == (49.5, 0, 49, 98)


def test_percentiles_are_those_of_numpy():
    image = noise((3, 32, 32, 3))
    for channel, found in enumerate(describe(image).intensity):
        sample = image[:, ::4, ::4, channel]
        expected = np.percentile(sample, [1, 50, 99], method="inverted_cdf")
        assert [found.p1, found.p50, found.p99] == expected.tolist()
        assert found.mean == pytest.approx(sample.mean(), abs=0.005)


@pytest.mark.parametrize(
    ("copies", "missing"),
    [((), ()), ((0,), ("pre-contrast",)), ((0, 2), ("pre-contrast", "post-contrast"))],
)
def test_missing_sequences(copies, missing):
    image = noise()
    for channel in copies:
        image[..., channel] = image[..., 1]
    assert describe(image).missing == missing


def test_one_pixel_makes_a_sequence_of_its_own():
    image = noise()
    image[..., 0] = image[..., 1]
    image[2, 3, 3, 0] ^= 1  # not among the sampled ones
    assert describe(image).missing == ()
