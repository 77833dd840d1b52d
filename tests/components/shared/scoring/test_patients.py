"""A patient with three scans counts once."""

import numpy as np
import pytest
from scipy import stats

from components.shared.scoring.comparison import compare
from components.shared.scoring.groups import group, size_thirds
from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.metrics import aggregate
from components.shared.scoring.patients import by_patient, patient_means

SHAPE = (2, 4, 5)
FOUND = {"a": (9, 6, 3), "b": (8,), "c": (4,)}  # of ten tumour pixels; nothing else is predicted
DICE = [np.mean([2 * found / (10 + found) for found in scans]) for scans in FOUND.values()]


@pytest.fixture(scope="module")
def scans(score):
    """Scores of five scans of three patients; the second scan of the first one stands last."""
    truth = np.zeros(SHAPE)
    truth[0, :2] = 1
    scores = []
    for patient, counts in FOUND.items():
        for number, found in enumerate(counts):
            probability = (truth * (truth.cumsum().reshape(SHAPE) <= found)).astype(float)
            name = f"TCGA_CS_{patient.upper()}_2000010{number + 1}"
            scores.append(score(truth, probability, name))
    return [scores[0], *scores[2:], scores[1]]


def test_means_and_intervals_are_over_patients(scans):
    found = aggregate(scans)

    assert found["patients"] == 3
    assert found["patient_dice_mean"] == pytest.approx(np.mean(DICE))
    assert found["patient_dice_median"] == pytest.approx(np.median(DICE))
    low, high = mean_interval(DICE)
    assert found["patient_dice_mean_ci_low"] == pytest.approx(low)
    assert found["patient_dice_mean_ci_high"] == pytest.approx(high)
    # recall is what was found of ten pixels
    assert found["recall_mean"] == pytest.approx((0.6 + 0.8 + 0.4) / 3)
    assert found["pooled_dice"] == pytest.approx(2 * 18 / (30 + 18))
    # every slice counts: five with tumour
    dice = [2 * count / (10 + count) for counts in FOUND.values() for count in counts]
    assert found["tumour_slice_dice_mean"] == pytest.approx(np.mean(dice))
    assert found["slice_dice_mean_empty_baseline"] == 1 / 2


def test_one_scan_of_each_patient_is_left_as_it_is(scans):
    assert by_patient(scans[1:4]) == scans[1:4]
    assert [one.volume for one in by_patient(scans)] == [
        "TCGA_CS_A",
        *(s.volume for s in scans[2:4]),
    ]


def test_a_figure_is_averaged_over_the_scans_that_have_it(score):
    truth, nothing = np.ones(SHAPE), np.zeros(SHAPE)
    names = [f"TCGA_CS_A_2000010{number}" for number in (1, 2)]
    pair = [score(truth, truth, names[0]), score(truth, nothing, names[1])]

    (found,) = by_patient(pair)

    assert (found.dice, found.precision, found.recall) == (0.5, 1, 0.5)
    assert aggregate(pair)["precision_undefined"] == 0
    assert aggregate(pair[1:])["precision_undefined"] == 1
    assert patient_means(pair, lambda scan: scan.dice) == [0.5]


def test_models_are_compared_patient_by_patient(scans):
    others = [scan.empty for scan in reversed(scans)]

    found = compare(scans, others, 0.95)

    assert list(found.pairs) == ["TCGA_CS_A", "TCGA_CS_B_20000101", "TCGA_CS_C_20000101"]
    assert [dice for dice, _ in found.pairs.values()] == pytest.approx(DICE)
    assert found.difference == pytest.approx(np.mean(DICE))
    assert found.standard_error == pytest.approx(stats.sem(DICE))
    assert {one.group: one.patients for one in found.groups}["site/CS"] == 3


def test_all_scans_of_a_patient_are_in_one_third(make_patient_score):
    def scan(volume, patient, size):
        return make_patient_score(volume, size, 0, patient=patient)

    # 30, 10 and 20 pixels on average
    scores = [scan("a1", "a", 59), scan("b", "b", 10), scan("c", "c", 20), scan("a2", "a", 1)]
    assert size_thirds(scores) == {"b": "small", "c": "medium", "a1": "large", "a2": "large"}
    assert {name: len(some) for name, some in group(scores).items()} == {
        "site/CS": 4,
        "size/small": 1,
        "size/medium": 1,
        "size/large": 2,
    }
