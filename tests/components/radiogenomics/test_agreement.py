"""The ICC against published figures."""

import numpy as np
import pytest

from components.radiogenomics.agreement import Agreement, measure_agreement

# six patients, four raters: Shrout and Fleiss 1979, table 2
PUBLISHED = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_the_published_example():
    found = measure_agreement(PUBLISHED)
    assert found.icc == pytest.approx(0.2898, abs=5e-5)  # 0.29 in their table 4
    assert (found.low, found.high) == pytest.approx((0.0188, 0.7611), abs=5e-5)  # of R's irr


def test_equal_values_agree_and_an_offset_disagrees():
    values = [1.0, 2.0, 3.0, 4.0]
    equal = measure_agreement([(each, each) for each in values])
    assert equal == Agreement(patients=4, icc=1.0, low=1.0, high=1.0)
    shifted = measure_agreement([(each, each + 2) for each in values])
    assert 0 < shifted.icc < 0.6
    assert shifted.low < shifted.icc < shifted.high


def test_few_patients_have_no_figure():
    assert measure_agreement([(1.0, 2.0), (3.0, 4.0)]) == Agreement(patients=2)
    assert measure_agreement([]) == Agreement(patients=0)


def test_the_interval_covers_the_true_value():
    random = np.random.default_rng(0)
    true, covered = 0.8, 0
    for _ in range(200):
        patients = random.normal(0, np.sqrt(true), (20, 1))
        found = measure_agreement(patients + random.normal(0, np.sqrt(1 - true), (20, 2)))
        covered += found.low <= true <= found.high
    assert 180 <= covered <= 199
