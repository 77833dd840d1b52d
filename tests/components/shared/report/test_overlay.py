import numpy as np
import pytest

from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.volumes import Volume
from components.shared.report.overlay import (
    OUTLINES,
    PREDICTION_COLOR,
    TRUTH_COLOR,
    draw_channel,
    draw_overlays,
    draw_slice,
    largest_tumour_slice,
)

TWO = Channels(names=("T1", "T2"), reference="T2", dtype="float32")


def volume(mask):
    return Volume(np.full((*mask.shape, 3), 60, dtype=np.uint8), mask.astype(np.uint8))


def colored(pixels, color):
    return (pixels == color).all(axis=-1)


def test_outlines_stand_where_truth_and_prediction_are():
    truth, predicted = np.zeros((2, 3, 64, 48), dtype=bool)
    truth[1, 10:20, 4:14] = True
    predicted[1, 40:50, 30:40] = True

    pixels = draw_slice(volume(truth), predicted[None], 1)

    assert (pixels.shape, pixels.dtype) == ((384, 288, 3), np.uint8)
    scale = 384 / 64
    for color, (top, left) in ((TRUTH_COLOR, (10, 4)), (PREDICTION_COLOR, (40, 30))):
        rows, columns = colored(pixels, color).nonzero()
        assert np.allclose([rows.min(), columns.min()], np.multiply((top, left), scale), atol=4)
        assert np.allclose(
            [rows.max(), columns.max()], np.multiply((top + 10, left + 10), scale), atol=4
        )
        middle = np.multiply((top + 5, left + 5), scale).astype(int)
        assert len(set(pixels[tuple(middle)])) == 1  # the anatomy stays visible, gray


def test_neither_outline_hides_the_other_where_they_agree():
    mask = np.zeros((1, 64, 64), dtype=bool)
    mask[0, 20:40, 20:40] = True

    pixels = draw_slice(volume(mask), mask[None], 0)

    for color in (TRUTH_COLOR, PREDICTION_COLOR):
        assert colored(pixels, color).sum() > 4 * 20 * 6


def test_an_area_ends_where_the_picture_does():
    everything = np.ones((1, 32, 32), dtype=bool)

    magenta = colored(draw_slice(volume(everything), everything[None], 0), PREDICTION_COLOR)

    assert magenta[[0, 1, -2, -1]].all()
    assert magenta[:, [0, 1, -2, -1]].all()
    assert not magenta[2:-2, 2:-2].any()


def test_the_truth_alone_is_drawn_as_with_an_empty_prediction():
    mask = np.zeros((1, 64, 64), dtype=bool)
    mask[0, 20:40, 20:40] = True

    alone = draw_slice(volume(mask), None, 0)

    assert colored(alone, TRUTH_COLOR).any()
    assert np.array_equal(alone, draw_slice(volume(mask), np.zeros_like(mask)[None], 0))


def test_channels_are_grey_and_of_the_asked_size():
    image = np.full((1, 10, 20, 3), 50, dtype=np.uint8)
    image[0, :, :10, 2] = 0  # the left half of the last channel is dark
    dark_left = draw_channel(Volume(image, image[..., 0]), 2, 0, 100)

    assert dark_left.shape == (50, 100, 3)
    assert dark_left[:, :40].max() == 0
    assert dark_left[:, 60:].min() >= 254


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_any_scale_is_drawn_from_black_to_white(dtype):
    image = np.full((2, 40, 40, 2), -1100, dtype=dtype)  # air in Hounsfield units
    image[:, :, 20:, 1] = 900
    drawn = draw_slice(Volume(image, np.zeros((2, 40, 40), np.uint8), TWO), None, 0, 100)

    assert drawn[:, :45].max() == 0
    assert drawn[:, 55:].min() >= 254


def test_proportions_are_those_of_the_body():
    image = np.zeros((3, 20, 30, 3), dtype=np.uint8)
    scan = Volume(image, image[..., 0], geometry=Geometry.of_affine(np.diag([5, 3, 1, 1])))

    assert draw_slice(scan, None, 0, 300).shape == (300, 150, 3)  # 60 mm x 30 mm


def test_nothing_is_drawn_on_an_empty_slice():
    empty = np.zeros((2, 32, 32), dtype=bool)

    pixels = draw_slice(volume(empty), empty[None], 0)

    assert (pixels == pixels[..., :1]).all()


def test_a_long_and_narrow_slice_is_drawn():
    empty = np.zeros((1, 1, 1000), dtype=bool)

    assert draw_slice(volume(empty), empty[None], 0).shape == (1, 384, 3)


def test_a_volume_without_tumour_has_its_middle_slice():
    mask = np.zeros((5, 4, 4), dtype=bool)

    assert largest_tumour_slice(mask) == 2
    mask[4, :2] = True
    assert largest_tumour_slice(mask) == 4


def captions_of(volume, predicted):
    return [picture.caption for picture in draw_overlays(volume, predicted[None]).pictures]


def test_shows_the_largest_tumour_the_most_missed_and_the_most_false():
    truth, predicted = np.zeros((2, 6, 32, 32), dtype=bool)
    truth[2, :20, :20] = predicted[2, :20, :20] = True
    truth[3, :10, :10] = True
    predicted[5, :3, :2] = True

    captions = captions_of(volume(truth), predicted)

    assert captions == [
        "slice 3: largest tumour area",
        "slice 4: most missed tumour (100 px)",
        "slice 6: most false positives (6 px)",
    ]


def test_a_slice_is_shown_once_and_others_with_tumour_beside_it():
    truth, predicted = np.zeros((2, 4, 32, 32), dtype=bool)
    truth[2, :8, :8] = True
    truth[1, :3, :3] = predicted[1, :3, :3] = True
    predicted[2, 8:12, 8:12] = True

    captions = captions_of(volume(truth), predicted)

    assert captions == [
        "slice 3: largest tumour area, most missed tumour (64 px), most false positives (16 px)",
        "slice 2: much tumour",
    ]


def test_a_volume_without_tumour_shows_its_middle():
    empty = np.zeros((5, 32, 32), dtype=bool)

    assert captions_of(volume(empty), empty) == ["slice 3: middle"]


def test_each_target_has_colors_of_its_own():
    truth, predicted = np.zeros((2, 5, 1, 96, 96), dtype=bool)
    for target in range(5):
        place = np.s_[12 * target + 8 : 12 * target + 16]
        truth[target, 0, place, 8:20] = True
        predicted[target, 0, place, 40:60] = True
    targets = [Target(name=f"t{target}", labels=(target + 1,)) for target in range(5)]
    labels = sum((target + 1) * np.uint8(truth[target]) for target in range(5))
    image = np.full((1, 96, 96, 3), 60, np.uint8)
    image[:, :, 80:] = 240  # white, so that 60 is gray
    nested = Volume(image, labels, targets=tuple(targets))

    pixels = draw_slice(nested, predicted, 0)[:, : 4 * 70]

    for target, outline in enumerate(OUTLINES):
        for color, left in ((outline.truth, 8), (outline.prediction, 40)):
            rows, columns = colored(pixels, color).nonzero()
            assert rows.min() == pytest.approx(4 * (12 * target + 8), abs=3)
            assert columns.min() == pytest.approx(4 * left, abs=3)
    assert len({color for outline in OUTLINES for color in outline[:2]}) == 2 * len(OUTLINES)
    assert (pixels[4 * 56 :] == pixels[4 * 56 :, :, :1]).all()  # the fifth is not drawn
