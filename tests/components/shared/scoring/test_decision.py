import numpy as np
import pytest

from components.shared.scoring.decision import decision_text, find_tumour


@pytest.fixture
def probability():
    """A part of 8 pixels, one of 4 that it touches by no corner, one of 1, and a corner of it."""
    found = np.zeros((4, 6, 6), np.float32)
    found[0:2, 0:2, 0:2] = 0.9
    found[0, 0:2, 4:6] = 0.7
    found[3, 5, 5] = 0.6
    return found


@pytest.mark.parametrize(
    ("share", "pixels"), [(0, 13), (0.1, 13), (0.2, 12), (0.5, 12), (0.51, 8), (1, 8)]
)
def test_parts_smaller_than_the_share_of_the_largest_are_left_out(probability, share, pixels):
    mask = find_tumour(probability, 0.5, share)
    assert mask.dtype == bool
    assert mask.sum() == pixels
    assert not (mask & (probability < 0.5)).any()


def test_parts_that_share_a_corner_across_slices_are_one(probability):
    probability[2, 2, 2] = 0.6
    assert find_tumour(probability, 0.5, 1).sum() == 9


def test_what_is_a_part_depends_on_the_threshold(probability):
    probability[0, 0, 2:4] = 0.4  # joins the first two
    assert find_tumour(probability, 0.5, 0.6).sum() == 8
    assert find_tumour(probability, 0.4, 0.6).sum() == 14


@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_nothing_stays_nothing(share):
    assert not find_tumour(np.zeros((2, 3, 3), np.float32), 0.5, share).any()


def test_the_sentence_names_the_share_only_where_there_is_one():
    assert decision_text(0.5, 0).endswith("is 0.5 or more.")
    assert "at least 10% of the pixels" in decision_text(0.4, 0.1)
