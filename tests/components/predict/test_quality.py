"""Quality of a prediction without a label."""

import numpy as np
import pytest

from components.predict.quality import QualityCheck, mean_entropy
from components.predict.settings import QualitySettings
from components.shared.dataset.volumes import Volume
from components.shared.model.segmenter import VolumeRefusedError
from tests.components.conftest import Answering


class Training:
    """Training data of tests: every score and size is as it says."""

    def __init__(self, score=0.0, usual=True):
        self.score, self.usual = score, usual

    def intensity_score(self, volume):
        return self.score

    def has_size(self, mask, voxel_ml):
        return self.usual


def bright(image, name):
    """Probability of the first channel."""
    return image[None, ..., 0].astype(np.float32) / 255


def measured(probability, answer=bright, training=None, **settings):
    """The columns of a volume whose network answers the probability."""
    probability = np.asarray(probability, np.float32)
    image = np.repeat((probability * 255).astype(np.uint8)[..., None], 3, -1)
    volume = Volume(image, np.zeros(image.shape[:3], np.uint8))
    check = QualityCheck(Answering(answer), 0.5, QualitySettings(**settings), training)
    check.measure("a", volume, probability[None], probability[None] >= 0.5)
    return check.columns


def test_entropy_is_in_bits():
    assert mean_entropy(np.array([0.5])) == 1
    assert mean_entropy(np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-9)
    assert mean_entropy(np.array([0.11, 0.89])) == pytest.approx(0.5, abs=1e-3)


def test_only_predicted_pixels_count():
    columns = measured([[[0.9, 0.1, 0.4, 0.7]]])
    assert columns["confidence"] == pytest.approx(0.8)
    assert columns["mean_entropy"] == pytest.approx(mean_entropy(np.array([0.9, 0.7])), abs=1e-5)
    assert (columns["components"], columns["largest_component_fraction"]) == (2, 0.5)


def test_an_empty_prediction_has_no_confidence():
    assert measured(np.zeros((2, 3, 4))) == {
        "confidence": None,
        "mean_entropy": None,
        "flip_disagreement": 0.0,
        "components": 0,
        "largest_component_fraction": None,
        "intensity_score": None,
        "flags": (),
    }


def test_a_network_that_treats_both_sides_alike_agrees_with_itself():
    assert measured([[[0.9, 0.9, 0.1, 0.1]]])["flip_disagreement"] == 0


def test_a_network_that_prefers_a_side_does_not():
    def left(image, name):
        return bright(image, name) * ([1, 1, 0, 0])

    columns = measured([[[0.9, 0.9, 0.1, 0.1]]], left)
    assert columns["flip_disagreement"] == 1
    assert columns["flags"] == ("unstable",)


def test_without_the_mirror_image_there_is_one_prediction():
    def refuse(image, name):
        raise VolumeRefusedError(name, "out of memory")

    assert measured([[[0.9]]], refuse, flip=False)["flip_disagreement"] is None
    assert measured([[[0.9]]], refuse)["flip_disagreement"] is None


@pytest.mark.parametrize(
    ("flag", "settings", "training"),
    [
        ("uncertain", {"max_entropy": 0.1}, None),
        ("scattered", {"max_components": 1}, None),
        ("intensity", {}, Training(score=4.0)),
        ("size", {}, Training(usual=False)),
    ],
)
def test_what_is_beyond_a_limit_is_flagged(flag, settings, training):
    probability = [[[0.9, 0.0, 0.0, 0.9]]]
    assert measured(probability, training=training, **settings)["flags"] == (flag,)
    assert measured(probability, training=Training())["flags"] == ()
