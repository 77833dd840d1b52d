import numpy as np
import pytest
from scipy import stats

from components.shared.scoring.comparison import Comparison, compare
from tests.benchmarks.gate import patient_scores


def some(count=40, spread=0.05, seed=0):
    random = np.random.default_rng(seed)
    reference = random.uniform(0.2, 0.9, count)
    candidate = np.clip(reference + random.normal(0.02, spread, count), 0, 1)
    return patient_scores(candidate), patient_scores(reference)


def differences(comparison):
    return np.array([one - other for one, other in comparison.pairs.values()])


def test_patients_are_paired_by_name_not_by_order():
    comparison = compare(
        patient_scores([0.3, 0.6, 1.0, 0.5]), patient_scores([0.2, 0.5, 0.9, 0.4])[::-1], 0.95
    )
    assert comparison.low == pytest.approx(0.1, abs=1e-3)
    assert comparison.high == pytest.approx(0.1, abs=1e-3)


def test_the_bounds_are_those_of_the_differences_each_one_sided():
    comparison = compare(*some(), 0.95)
    found = differences(comparison)
    assert comparison.difference == pytest.approx(found.mean())
    assert comparison.standard_error == pytest.approx(stats.sem(found))
    # far from -1 and 1 the logit scale changes nothing: the bounds of the one-sided t test
    expected = stats.t.interval(0.90, 39, found.mean(), stats.sem(found))
    assert (comparison.low, comparison.high) == pytest.approx(expected, abs=1e-4)
    wide = compare(*some(), 0.99)
    assert wide.low < comparison.low < comparison.high < wide.high


def test_the_bounds_stay_within_what_a_difference_can_be():
    comparison = compare(patient_scores([1.0, 0.9, 0.99]), patient_scores([0.0, 0.3, 0.0]), 0.95)
    assert -1 <= comparison.low < comparison.difference < comparison.high <= 1


def test_groups_are_sites_and_size_thirds_with_their_own_errors():
    comparison = compare(*some(7), 0.95)
    groups = {one.group: one for one in comparison.groups}
    assert list(groups) == [
        "site/CS",
        "site/DU",
        "site/HT",
        "size/small",
        "size/medium",
        "size/large",
    ]
    found = differences(comparison)[::3]
    assert groups["site/CS"].patients == 3
    assert groups["site/CS"].difference == pytest.approx(found.mean())
    assert groups["site/CS"].standard_error == pytest.approx(stats.sem(found))
    alone = compare(
        patient_scores([0.5, 0.6], ["CS", "EZ"]), patient_scores([0.4, 0.6], ["CS", "EZ"]), 0.95
    )
    assert {one.standard_error for one in alone.groups} == {None}


def test_models_that_score_the_same_are_identical():
    one, other = some()
    assert compare(one, one, 0.95).identical
    assert not compare(one, other, 0.95).identical
    assert compare(one, one, 0.95).difference == 0


@pytest.mark.parametrize("patients", [8, 14, 50])
def test_the_least_difference_is_shown_four_times_in_five(patients):
    spread = 0.05
    detectable = compare(*some(patients, spread, seed=1), 0.95).detectable
    # as for a known spread, when the spread that was seen is the true one
    seen = differences(compare(*some(patients, spread, seed=1), 0.95)).std(ddof=1)
    true = detectable * spread / seen
    drawn = np.random.default_rng(0).normal(true, spread, (4000, patients))
    shown = stats.ttest_1samp(drawn, 0, axis=1, alternative="greater").pvalue < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("patients", [5, 14, 50])
def test_the_chance_of_an_equal_model_is_that_of_simulated_ones(patients):
    comparison = compare(*some(patients, seed=2), 0.95)
    spread = differences(comparison).std(ddof=1)
    drawn = np.random.default_rng(0).normal(0, spread, (4000, patients))
    passed = stats.ttest_1samp(drawn, -0.03, axis=1, alternative="greater").pvalue < 0.05
    assert comparison.chance_of_equal(0.03) == pytest.approx(passed.mean(), abs=0.03)


def test_without_spread_an_equal_model_passes_any_margin():
    same = compare(patient_scores([0.5, 0.6]), patient_scores([0.5, 0.6]), 0.95)
    assert (same.chance_of_equal(0.03), same.chance_of_equal(0.0)) == (1.0, 0.0)


def test_a_comparison_can_be_written_and_read_back():
    comparison = compare(*some(5), 0.95)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
