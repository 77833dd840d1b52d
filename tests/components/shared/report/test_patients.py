import pytest

from components.shared.report.page import Notice
from components.shared.report.patients import (
    baseline_notice,
    dice_pictures,
    first_target_note,
    outlines,
    patient_line,
    patient_table,
)


@pytest.fixture
def scores(make_patient_score):
    return [
        make_patient_score("TCGA_CS_1", 100, 90),
        make_patient_score("TCGA_CS_2", 100, 20),
        make_patient_score("TCGA_CS_3", 0, 0),
    ]


@pytest.mark.parametrize(("mean", "warned"), [(0.4, True), (0.5, True), (0.6, False)])
def test_a_model_not_above_the_all_empty_prediction_gets_a_notice(mean, warned):
    metrics = {"patient_dice_mean": mean, "patient_dice_mean_empty_baseline": 0.5}
    notices = baseline_notice(metrics)
    assert [notice.kind for notice in notices] == (["bad"] if warned else [])
    assert all(isinstance(notice, Notice) and f"{mean:.3f}" in notice.text for notice in notices)


def test_the_picture_by_size_counts_the_patients_it_cannot_show(scores):
    by_size, by_group = dice_pictures(scores)
    assert by_size.caption.endswith("Patients without tumour, not shown: 1.")
    assert "not shown" not in dice_pictures(scores[:2])[0].caption
    assert "thirds of these patients" in by_group.caption


def test_a_line_has_dice_and_sizes(scores):
    assert patient_line(scores[1]).startswith("TCGA_CS_2, site CS: Dice ")
    assert "100 tumour pixels" in patient_line(scores[1])


def test_the_table_has_the_worst_patient_first(scores):
    _, table = patient_table(scores)
    dice = [score.dice for score in sorted(scores, key=lambda score: score.dice)]
    assert table.rows[0][0] == "TCGA_CS_2"
    assert [row[table.columns.index("Dice")] for row in table.rows] == dice
    assert "fold" not in table.columns
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_table_of_a_cross_validation_has_the_fold(scores):
    folds = {score.volume: f"fold-{number}" for number, score in enumerate(scores)}
    _, table = patient_table(scores, folds)
    assert table.columns[:3] == ("volume", "fold", "site")
    assert table.rows[0][1] == "fold-1"


def test_one_target_needs_no_explanation_and_several_have_their_colors():
    assert outlines("FLAIR", ["tumour"]) == (
        "FLAIR, with the true outline in green and the predicted outline in magenta."
    )
    several = outlines("FLAIR", ["whole", "core"])
    assert several.endswith("outline of whole (green and magenta), core (yellow and cyan).")
    assert first_target_note(["tumour"]) == []
    (note,) = first_target_note(["whole", "core"])
    assert "finds 2 targets: whole, core." in note
