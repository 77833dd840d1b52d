import pytest

from components.aggregate.figures import aggregate_figures


def test_further_targets_have_their_names_before_their_figures(two_targets):
    folds, alone = two_targets
    figures, expected = aggregate_figures(folds), aggregate_figures(alone)
    assert {name: figures[f"core/{name}"] for name in expected} == expected
    assert figures["patient_dice_mean"] == pytest.approx((0.9 + 0.5 + 0.2) / 3)
