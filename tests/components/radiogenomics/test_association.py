import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from components.radiogenomics.association import find_associations


def test_two_clusters_are_tested_exactly_and_corrected_for_all_tests():
    values = {f"p{number}": float(number) for number in range(12)}
    clusters = {name: str(int(value >= 6)) for name, value in values.items()}
    mixed = {name: str(number % 2) for number, name in enumerate(values)}
    found = find_associations({"shape": values}, {"apart": clusters, "mixed": mixed})
    apart, other = found
    assert apart.p == pytest.approx(2 * hypergeom(12, 6, 6).pmf(6))
    assert apart.corrected == pytest.approx(2 * apart.p)
    assert (other.p, other.corrected) == (1.0, 1.0)
    assert apart.patients == 12


def test_several_clusters_have_the_p_of_all_tables():
    values = {f"p{number}": float(number) for number in range(9)}
    clusters = dict(zip(values, "aaabbbccc", strict=True))
    (found,) = find_associations({"shape": values}, {"three": clusters})
    # above the median 4: one of b, three of c
    chosen = list(itertools.combinations("aaabbbccc", 4))
    counts = [tuple(each.count(name) for name in "abc") for each in chosen]
    often = {count: counts.count(count) for count in counts}
    expected = sum(often[count] <= often[0, 1, 3] for count in counts) / len(counts)
    assert found.p == pytest.approx(expected, abs=0.005)
    assert found == find_associations({"shape": values}, {"three": clusters})[0]


def test_only_patients_with_both_count():
    (found,) = find_associations({"shape": {"a": 1.0, "b": 2.0}}, {"x": {"b": 1.0, "c": 2.0}})
    assert found.patients == 1


def test_a_few_patients_in_several_clusters_are_tested():
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    (found,) = find_associations({"shape": values}, {"x": dict(zip(values, "rrst", strict=True))})
    # of the six ways to choose two of r, r, s and t, only both r and neither are as rare
    assert found.p == pytest.approx(2 / 6, abs=0.01)


@pytest.mark.parametrize(
    ("values", "clusters"),
    [({}, {}), ({"a": 1.0, "b": 1.0}, {"a": 1, "b": 2}), ({"a": 1.0, "b": 2.0}, {"a": 1, "b": 1})],
)
def test_nothing_to_compare_is_no_test(values, clusters):
    (found,) = find_associations({"shape": values}, {"x": clusters})
    assert found.p is None
    assert found.corrected is None


def test_p_is_uniform_without_an_association():
    random = np.random.default_rng(1)
    names = [f"p{number}" for number in range(40)]
    found = [
        find_associations(
            {"shape": dict(zip(names, random.random(40).tolist(), strict=True))},
            {"x": dict(zip(names, random.integers(0, 2, 40).tolist(), strict=True))},
        )[0].p
        for _ in range(200)
    ]
    assert np.mean(np.array(found) < 0.05) <= 0.05  # Fisher's test is conservative
