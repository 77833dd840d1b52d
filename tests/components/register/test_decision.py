import numpy as np
import pytest

from components.register.decision import (
    compare,
    decide,
    decide_first,
    too_few,
)
from components.register.settings import RegisterSettings
from components.shared.errors import UserError
from components.shared.scoring.scores import PatientScore

SETTINGS = RegisterSettings()
GOOD = {
    "patient_dice_mean": 0.8,
    "patient_dice_mean_empty_baseline": 0.0,
    "pooled_dice": 0.82,
    "pooled_dice_empty_baseline": 0.0,
}


def scores(dice, sites=("CS", "DU", "HT")):
    return [
        PatientScore(
            volume=f"volume {number}",
            patient=f"patient {number}",
            site=sites[number % len(sites)],
            slices=20,
            tumour_slices=5,
            tumour_pixels=10_000 + number,
            predicted_pixels=10_000 - number,
            true_positives=round(value * 10_000),
            hd95=None,
            surface_dice=value,
        )
        for number, value in enumerate(dice)
    ]


def judge(candidate, champion, settings=SETTINGS, metrics=GOOD):
    comparison = compare(scores(candidate), scores(champion), settings)
    return decide(metrics, comparison, "version 3", settings)


def test_the_first_candidate_is_promoted_when_better_than_nothing():
    decision = decide_first(GOOD)
    assert decision.promoted
    assert "there was no champion; patient_dice_mean 0.800 (all-empty" in decision.reason


@pytest.mark.parametrize("name", ["patient_dice_mean", "pooled_dice"])
def test_the_first_candidate_is_refused_when_not_better_than_nothing(name):
    decision = decide_first({**GOOD, f"{name}_empty_baseline": GOOD[name]})
    assert not decision.promoted
    assert f"{name} {GOOD[name]:.3f} is not better than the {GOOD[name]:.3f}" in decision.reason


def test_a_missing_metric_is_named():
    rest = {key: value for key, value in GOOD.items() if key != "pooled_dice"}
    with pytest.raises(UserError, match="metrics lack pooled_dice;"):
        decide_first(rest)


def test_a_better_candidate_is_promoted_with_the_numbers():
    decision = judge(np.linspace(0.7, 0.9, 11), np.linspace(0.7, 0.9, 11) - 0.02)
    assert decision.promoted
    assert decision.reason == (
        "patient Dice 0.800 against 0.780 of version 3 on the same 11 patients, "
        "difference +0.020 (95% interval +0.020 to +0.020, margin -0.030); no group falls by more "
        "than 0.100"
    )


def test_equal_scores_keep_the_champion():
    same = np.linspace(0.5, 0.9, 11)
    decision = judge(same, same)
    assert not decision.promoted
    assert "same scores on every patient as version 3" in decision.reason


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("loss", [0.05, 0.1, 0.4])
def test_a_worse_candidate_is_never_promoted(seed, loss):
    random = np.random.default_rng(seed)
    champion = random.uniform(0.6, 0.95, 15)
    candidate = np.clip(champion - loss + random.normal(0, 0.03, 15), 0, 1)
    decision = judge(candidate, champion, RegisterSettings(seed=seed))
    assert not decision.promoted
    assert "may be worse by more than the margin of 0.030" in decision.reason


def test_a_small_but_certain_loss_is_refused():
    champion = np.linspace(0.6, 0.9, 15)
    decision = judge(champion - 0.01, champion)
    assert not decision.promoted
    assert "it is worse, if by less than the margin" in decision.reason


def test_better_than_the_champion_but_not_than_nothing_is_refused():
    champion = np.linspace(0.1, 0.2, 15)
    decision = judge(champion + 0.1, champion, metrics={**GOOD, "pooled_dice": 0.0})
    assert not decision.promoted
    assert "pooled_dice 0.000 is not better" in decision.reason


def test_a_fall_of_one_site_is_refused_though_the_mean_rises():
    champion = np.full(30, 0.6)
    candidate = champion + 0.2
    candidate[::3] = 0.4  # all of CS
    decision = judge(candidate, champion)
    assert not decision.promoted
    assert "site/CS falls from 0.600 to 0.400 (10 patients), by more than 0.100" in decision.reason
    assert "site/DU" not in decision.reason


def test_a_fall_of_one_size_third_is_refused():
    champion = np.full(30, 0.6)
    candidate = champion + 0.2
    candidate[20:] = 0.3  # tumours grow with the number
    decision = judge(candidate, champion)
    assert not decision.promoted
    assert "size/large falls from 0.600 to 0.300" in decision.reason


def judge_with_one_of_ez(change, **settings):
    champion, sites = np.full(12, 0.6), ("EZ", *("CS",) * 11)
    candidate = champion + 0.15
    candidate[0] += change - 0.15
    options = RegisterSettings(**settings)
    comparison = compare(scores(candidate, sites), scores(champion, sites), options)
    return decide(GOOD, comparison, "version 3", options)


def test_a_group_of_one_patient_decides():
    decision = judge_with_one_of_ez(-0.3)
    assert not decision.promoted
    assert "site/EZ falls from 0.600 to 0.300 (1 patient), by more than 0.100" in decision.reason


def test_groups_that_do_not_decide_are_told_with_their_falls():
    decision = judge_with_one_of_ez(-0.3, min_group_patients=3)
    assert decision.promoted
    assert decision.reason.endswith(
        "; no group of at least 3 patients falls by more than 0.100; groups of fewer than 3 "
        "patients do not decide: site/EZ; of these, site/EZ falls from 0.600 to 0.300 (1 patient)"
    )
    decision = judge_with_one_of_ez(0.1, min_group_patients=3)
    assert decision.reason.endswith("do not decide: site/EZ; of these, none falls")


def test_a_refusal_tells_the_groups_that_do_not_decide_too():
    champion = np.full(30, 0.6)
    decision = judge(champion - 0.2, champion, RegisterSettings(min_group_patients=11))
    assert not decision.promoted
    assert (
        "fewer than 11 patients do not decide: site/CS, site/DU, site/HT, size" in decision.reason
    )
    assert "site/DU falls from 0.600 to 0.400 (10 patients)" in decision.reason


def test_patients_are_paired_by_name_not_by_order():
    champion = scores([0.2, 0.5, 0.9, 0.4])
    comparison = compare(scores([0.3, 0.6, 1.0, 0.5]), champion[::-1], SETTINGS)
    assert comparison.low == pytest.approx(0.1, abs=1e-3)
    assert comparison.high == pytest.approx(0.1, abs=1e-3)


def test_the_interval_is_that_of_the_differences_and_seeded():
    random = np.random.default_rng(0)
    champion = random.uniform(0.2, 0.9, 40)
    candidate = np.clip(champion + random.normal(0.02, 0.05, 40), 0, 1)
    first = compare(scores(candidate), scores(champion), SETTINGS)
    assert first == compare(scores(candidate), scores(champion), SETTINGS)
    spread = 1.96 * np.std(candidate - champion) / np.sqrt(40)
    assert first.low == pytest.approx(first.difference - spread, abs=0.003)
    assert first.high == pytest.approx(first.difference + spread, abs=0.003)


def test_too_few_unseen_patients_say_what_to_do():
    assert too_few(2, "version 3") is None
    decision = too_few(1, "version 3")
    assert not decision.promoted
    assert "1 of the test patients are new to version 3" in decision.reason
    assert "`split.previous`" in decision.reason
