import numpy as np

from components.shared.dataset.volumes import Volume
from components.shared.report.slices import draw_overlays


def volume(mask):
    return Volume(np.full((*mask.shape, 3), 60, dtype=np.uint8), mask.astype(np.uint8))


def captions_of(volume, predicted):
    return [picture.caption for picture in draw_overlays(volume, predicted).pictures]


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
