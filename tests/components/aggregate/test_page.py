import re
from dataclasses import replace

import numpy as np
import pytest

from components.aggregate.figures import aggregate_figures
from components.aggregate.page import render_aggregated
from components.shared.dataset.manifest import make_manifest


def render(*folds):
    data = make_manifest([])
    return render_aggregated(folds, aggregate_figures(folds), {}, data, "parent")


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<main>")[2]))


def test_a_patient_with_several_scans_counts_once(fold):
    several = fold(1, 0.9, 0.5, 0.4)
    first, second, third = several.scores
    several = replace(
        several, targets={"tumour": [first, replace(second, patient=first.patient), third]}
    )
    figures = aggregate_figures([several, fold(2, 0.2)])
    assert figures["patients"] == 3
    assert figures["patient_dice_mean"] == pytest.approx((0.7 + 0.4 + 0.2) / 3)
    assert figures["patient_dice_median"] == pytest.approx(0.4)
    assert figures["fold_dice_sd"] == pytest.approx(np.std([0.55, 0.2], ddof=1))
    text = text_of(render(several, fold(2, 0.2)))
    assert "Each of the 3 patients was predicted once" in text
    assert "A patient with several scans has a row for each." in text


def test_the_headline_is_mean_with_interval_median_and_deviation(fold):
    text = text_of(render(fold(1, 0.9, 0.8), fold(2, 0.7, 0.2)))
    assert "predicted once, by the one of 2 models that never saw the patient in training" in text
    assert "patient Dice, mean 0.650 95 % interval" in text
    assert "patient Dice, median 0.750" in text
    assert "standard deviation 0.311 between patients" in text


def test_a_row_a_fold_and_a_row_a_patient_worst_first(fold):
    page = render(fold(1, 0.9, 0.8), fold(2, 0.7, 0.2))
    text = text_of(page)
    assert re.search(r"fold-1 1 1 2 0.850 0.850 0.071 0.500 run1", text)
    rows = re.findall(r"<td>(TCGA_CS_\d+)</td><td>(fold-\d)</td>", page)
    assert rows[0] == ("TCGA_CS_21", "fold-2")
    assert len(rows) == 4


def test_it_says_that_nothing_was_registered_and_when_nothing_was_learned(fold):
    text = text_of(render(fold(1, 0.0), fold(2, 0.0)))
    assert "no model was registered" in text
    assert "is not above the 0.000 of an all-empty prediction" in text
    assert "the model has not learned" not in text_of(render(fold(1, 0.5), fold(2, 0.6)))


def test_each_target_has_a_section(two_targets):
    folds, alone = two_targets
    text = text_of(render(*folds))
    section = text.partition("In this section, tumour means core.")[2]
    assert f"{aggregate_figures(alone)['patient_dice_mean']:.3f}" in section
    assert "tumour means whole there" in text
