import dataclasses
from pathlib import Path

import pytest

from components.compare.candidates import Contender, Trained
from components.compare.ranking import is_clear, rank


@pytest.fixture
def contender(make_patient_score):
    def contender(label, *dice, parameters=1000):
        scores = [
            make_patient_score(f"v{place}", 1000, round(1000 * one), predicted_pixels=1000)
            for place, one in enumerate(dice)
        ]
        trained = Trained(f"run-{label}", Path(), Path())
        return Contender(label, trained, tuple(scores), parameters, 1.0, 0.1, {})

    return contender


def test_the_highest_mean_is_first_and_the_others_are_compared_with_it(contender):
    ranked = rank([contender("a", 0.5, 0.6, 0.4), contender("b", 0.8, 0.9, 0.8)], 0.95)
    assert [one.contender.label for one in ranked] == ["b", "a"]
    assert ranked[0].against_best is None
    assert ranked[1].against_best.difference == pytest.approx(-1 / 3, abs=1e-3)
    assert ranked[1].against_best.confidence == pytest.approx(0.975)


def test_of_equal_means_the_smaller_network_is_chosen(contender):
    large, small = contender("a", 0.5, 0.6, parameters=9), contender("b", 0.6, 0.5, parameters=8)
    assert [one.contender.label for one in rank([large, small], 0.95)] == ["b", "a"]
    same = dataclasses.replace(small, parameters=9)
    assert [one.contender.label for one in rank([same, large], 0.95)] == ["a", "b"]


def test_only_a_difference_beyond_its_interval_is_clear(contender):
    best = contender("best", 0.90, 0.85, 0.88, 0.90)
    near = contender("near", 0.80, 0.89, 0.90, 0.88)
    far = contender("far", 0.40, 0.36, 0.39, 0.41)
    _, second, third = rank([best, near, far], 0.95)
    assert (second.contender.label, is_clear(second)) == ("near", False)
    assert (third.contender.label, is_clear(third)) == ("far", True)


def test_one_patient_tells_no_difference(contender):
    _, second = rank([contender("a", 0.9), contender("b", 0.1)], 0.95)
    assert second.against_best is None
    assert not is_clear(second)
