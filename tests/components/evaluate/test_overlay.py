import numpy as np

from components.evaluate.overlay import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    draw_overlays,
    draw_slice,
    largest_tumour_slice,
)
from components.shared.volumes import Volume


def volume(mask):
    return Volume(np.full((*mask.shape, 3), 60, dtype=np.uint8), mask.astype(np.uint8))


def coloured(pixels, colour):
    return (pixels == colour).all(axis=-1)


def test_outlines_stand_where_truth_and_prediction_are():
    truth, predicted = np.zeros((2, 3, 64, 48), dtype=bool)
    truth[1, 10:20, 4:14] = True
    predicted[1, 40:50, 30:40] = True

    pixels = draw_slice(volume(truth), predicted, 1)

    assert (pixels.shape, pixels.dtype) == ((384, 288, 3), np.uint8)
    scale = 384 / 64
    for colour, (top, left) in ((TRUTH_COLOUR, (10, 4)), (PREDICTION_COLOUR, (40, 30))):
        rows, columns = coloured(pixels, colour).nonzero()
        assert np.allclose([rows.min(), columns.min()], np.multiply((top, left), scale), atol=4)
        assert np.allclose(
            [rows.max(), columns.max()], np.multiply((top + 10, left + 10), scale), atol=4
        )
        middle = np.multiply((top + 5, left + 5), scale).astype(int)
        assert len(set(pixels[tuple(middle)])) == 1  # the anatomy stays visible, grey


def test_neither_outline_hides_the_other_where_they_agree():
    mask = np.zeros((1, 64, 64), dtype=bool)
    mask[0, 20:40, 20:40] = True

    pixels = draw_slice(volume(mask), mask, 0)

    for colour in (TRUTH_COLOUR, PREDICTION_COLOUR):
        assert coloured(pixels, colour).sum() > 4 * 20 * 6


def test_nothing_is_drawn_on_an_empty_slice():
    empty = np.zeros((2, 32, 32), dtype=bool)

    pixels = draw_slice(volume(empty), empty, 0)

    assert (pixels == pixels[..., :1]).all()


def test_shows_the_largest_tumour_the_most_missed_and_the_most_false():
    truth, predicted = np.zeros((2, 6, 32, 32), dtype=bool)
    truth[2, :20, :20] = predicted[2, :20, :20] = True
    truth[3, :10, :10] = True
    predicted[5, :3, :2] = True

    captions = [overlay.caption for overlay in draw_overlays(volume(truth), predicted)]

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

    captions = [overlay.caption for overlay in draw_overlays(volume(truth), predicted)]

    assert captions == [
        "slice 3: largest tumour area, most missed tumour (64 px), most false positives (16 px)",
        "slice 2: much tumour",
    ]


def test_a_volume_without_tumour_shows_its_middle():
    empty = np.zeros((5, 32, 32), dtype=bool)

    (overlay,) = draw_overlays(volume(empty), empty)

    assert overlay.caption == "slice 3: middle"
    assert largest_tumour_slice(empty) == 2
