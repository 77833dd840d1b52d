import base64
import html
import re

import numpy as np
import pytest

from components.register.decision import decide, decide_first
from components.register.page import render_decision
from components.register.record import DecisionRecord
from components.register.settings import RegisterSettings
from components.shared.scoring.comparison import compare
from tests.benchmarks.gate import patient_scores

SETTINGS = RegisterSettings()
METRICS = {
    "patient_dice_mean": 0.81,
    "patient_dice_mean_empty_baseline": 0.0,
    "patients": 14.0,
    "patient_dice_mean_ci_low": 0.71,
    "patient_dice_mean_ci_high": 0.88,
    "pooled_dice": 0.84,
    "pooled_dice_empty_baseline": 0.0,
}


def record(change=None, patients=14, settings=SETTINGS, **changes):
    """A decision about a model that is better by `change`; without, about a first one."""
    random, comparison, champion = np.random.default_rng(0), None, None
    decision = decide_first(METRICS, settings)
    if change is not None:
        reference, champion = random.beta(8, 2, patients), "1"
        candidate = np.clip(reference + change + random.normal(0, 0.05, patients), 0, 1)
        comparison = compare(
            patient_scores(candidate), patient_scores(reference), settings.bound_confidence
        )
        decision = decide(METRICS, comparison, "version 1", settings)
    values = {
        "promoted": decision.promoted,
        "reason": decision.reason,
        "model_name": "brainseg",
        "model_version": "2",
        "champion_version": champion,
        "dataset_id": "0123456789abcdef",
        "split_id": "fedcba9876543210",
        "threshold": 0.5,
        "champion_threshold": 0.4 if champion else None,
        "champion_origin_known": True,
        "metrics": METRICS,
        "comparison": comparison,
        "earlier_decisions": 4,
        "earlier_on_same_patients": 3,
        "settings": settings,
    }
    return DecisionRecord(**(values | changes))


def text(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_a_promotion_is_reported_with_its_numbers_and_rules():
    found = record(0.02, started_from="models:/brainseg/1")
    page = text(render_decision(found))
    assert found.promoted
    assert "The candidate started from the weights of models:/brainseg/1." in page
    assert "Version 2 replaces version 1." in page
    assert found.reason in page
    comparison = found.comparison
    assert f"one-sided 95% bounds {comparison.low:+.3f} and {comparison.high:+.3f}" in page
    assert "test of non-inferiority" in page
    assert "The threshold of the candidate's scores is 0.5, that of the champion's 0.4" in page
    assert "data set 0123456789abcdef, split fedcba9876543210" in page


def test_a_refusal_is_reported_and_who_stays():
    page = render_decision(record(-0.1))
    assert 'class="notice bad"' in page
    assert "Version 2 is not promoted: version 1 remains champion." in page
    assert "Reason: it may be worse by more than the margin of 0.030;" in page


def test_a_first_champion_is_reported_without_a_comparison():
    page = render_decision(record())
    assert "Version 2 is champion." in page
    assert "there was no champion; patient_dice_mean 0.810" in page
    assert "non-inferiority" not in page
    assert "Patient by patient" not in page
    assert "all 14 test patients (mean patient Dice: 95 % interval 0.710" in page
    refused = render_decision(record(settings=RegisterSettings(min_patient_dice=0.9)))
    assert "Version 2 is not promoted: there is no champion." in refused
    assert "below the 0.900 that any champion must reach" in refused


def test_too_few_patients_to_compare_are_reported():
    page = render_decision(record(promoted=False, reason="0 of the test", champion_version="7"))
    assert "Version 2 is not promoted: version 7 remains champion." in page
    assert "0 of the test." in page


def test_the_differences_are_drawn():
    found = record(-0.02)
    (picture,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", render_decision(found))
    drawing = base64.b64decode(picture).decode()
    assert "margin" in drawing
    assert (
        drawing
        == base64.b64decode(
            re.search(r"svg\+xml;base64,([^\"]+)", render_decision(found))[1]
        ).decode()
    )
    falls = sum(one < other for one, other in found.comparison.pairs.values())
    assert f"{falls} of 14 fall" in render_decision(found)


def test_the_power_of_the_test_set_is_reported():
    found = record(0.0)
    page = text(render_decision(found))
    assert f"detectable difference {found.comparison.detectable:.3f} with 80% power" in page
    chance = found.comparison.chance_of_equal(0.03)
    assert f"an equal model passes {chance:.0%} of the time" in page
    needed = int(re.search(r"patients needed about (\d+) for an equal model to pass 80%", page)[1])
    # the textbook's n = ((z + z) sd / margin) squared
    spread = found.comparison.standard_error * np.sqrt(14)
    assert needed == int(np.ceil(((1.6449 + 0.8416) * spread / 0.03) ** 2))


@pytest.mark.parametrize(("uses", "warned"), [(3, False), (10, True)])
def test_use_of_the_same_patients_is_reported(uses, warned):
    page = render_decision(record(0.0, earlier_on_same_patients=uses, earlier_decisions=12))
    assert (
        f"Earlier decisions against version 1: 12, of these on exactly the same patients: {uses}."
        in page
    )
    assert ('class="notice warning"' in page) is warned


def test_a_champion_of_unknown_origin_is_reported():
    assert "that neither model was trained on" in render_decision(record(0.0))
    page = render_decision(record(0.0, champion_origin_known=False))
    assert "the champion may be trained on some" in page


def test_groups_show_which_of_them_decide():
    page = text(render_decision(record(0.0, patients=8)))
    assert "A group of at least 3 patients rejects" in page
    assert re.search(r"site HT 2 \S+ \S+ \S+ \S+ too few to decide", page)
    assert re.search(r"site CS 3 \S+ \S+ \S+ \S+ passes", page)
    assert "rejects" in text(render_decision(record(-0.3))).partition("verdict")[2]


def test_names_are_escaped_and_nothing_is_fetched():
    page = render_decision(record(0.0, model_name="<b>x</b>"))
    assert "<b>x</b>" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_targets_that_do_not_decide_are_reported():
    further = {"core": record(-0.3).comparison}
    metrics = METRICS | {f"core/{name}": value / 2 for name, value in METRICS.items()}
    found = record(0.02, targets=("whole", "core"), further=further, metrics=metrics)
    page = text(render_decision(found))
    assert "The decision is by whole, the first of the targets." in page
    assert "core/patient_dice_mean 0.405" in page
    assert f"{further['core'].difference:.3f}" in page.partition("These targets do not decide")[2]
    assert "Further targets" not in render_decision(record(0.02))
