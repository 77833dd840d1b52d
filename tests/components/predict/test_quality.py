"""Quality of a prediction without a label."""

import numpy as np
import pytest

from components.predict.quality import CaseQuality, mean_entropy


def measured(probability):
    quality = CaseQuality()
    probability = np.asarray(probability, np.float32)
    quality.measure("a", None, probability[None], probability[None] >= 0.5)
    return quality.columns


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
    columns = measured(np.zeros((2, 3, 4)))
    assert columns == {
        "confidence": None,
        "mean_entropy": None,
        "components": 0,
        "largest_component_fraction": None,
    }
