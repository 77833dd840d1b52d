import csv

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.scoring.scores import PATIENT_FIGURES, PatientScore
from components.shared.scoring.table import (
    read_patient_scores,
    read_target_scores,
    write_patient_scores,
)

SHAPE = (3, 6, 5)


def test_scores_survive_the_csv(tmp_path, some_scores):
    scores = some_scores()
    path = tmp_path / "per_patient.csv"

    write_patient_scores({"tumour": scores}, path)

    found = read_patient_scores(path)
    names = list(PatientScore.__dataclass_fields__)
    for one, other in zip(found, scores, strict=True):
        for name in names:
            value, expected = getattr(one, name), getattr(other, name)
            assert (type(value), value) == (type(expected), expected), name


def test_the_csv_has_the_promised_columns_and_blanks_for_undefined(tmp_path, score):
    path = tmp_path / "per_patient.csv"

    write_patient_scores({"tumour": [score(np.zeros(SHAPE), np.zeros(SHAPE))]}, path)

    with open(path, newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert ",".join(row) == (
        "volume,patient,site,slices,tumour_pixels,dice,precision,recall,hd95,surface_dice,"
        "tumour_slices,predicted_pixels,true_positives,false_positive_pixels,"
        "volume_difference_pixels,relative_volume_difference,size_third"
    )
    assert (row["patient"], row["dice"], row["size_third"]) == ("TCGA_CS_0001", "1.0", "small")
    assert (row["precision"], row["recall"], row["hd95"]) == ("", "", "")
    assert (row["surface_dice"], row["volume_difference_pixels"]) == ("1.0", "0")
    assert row["relative_volume_difference"] == ""
    assert "nan" not in path.read_text().lower()


def test_millimeters_are_columns_if_any_volume_has_them(tmp_path, score):
    path, truth = tmp_path / "per_patient.csv", np.ones(SHAPE)
    scores = [
        score(truth, truth, spacing_mm=(5, 1, 1)),
        score(truth, truth, "TCGA_CS_0002_20000101"),
    ]

    write_patient_scores({"tumour": scores}, path)

    with open(path, newline="") as stream:
        known, unknown = csv.DictReader(stream)
    for name in ("tumour_ml", "predicted_ml", "volume_difference_ml", "hd95_mm", "assd_mm"):
        assert known[name]
        assert unknown[name] == ""
    assert [one.tumour_ml for one in read_patient_scores(path)] == [pytest.approx(0.45), None]


def test_every_number_of_a_patient_is_a_figure():
    names = set(PatientScore.__dataclass_fields__) - {"volume", "patient", "site"}
    assert sorted(names) == sorted(PATIENT_FIGURES)


@pytest.mark.parametrize("text", ["volume,dice\na,0.5\n", "<html></html>\nx\n"])
def test_a_file_that_is_no_table_of_scores_is_named(tmp_path, text):
    path = tmp_path / "scores.csv"
    path.write_text(text)

    with pytest.raises(UserError, match=r"scores\.csv is not a table of patient scores"):
        read_patient_scores(path)


def test_the_fold_is_the_last_column_and_disturbs_no_reader(tmp_path, some_scores):
    scores, path = some_scores(), tmp_path / "out_of_fold.csv"
    folds = {score.volume: f"fold-{number}" for number, score in enumerate(scores)}

    write_patient_scores({"tumour": scores}, path, folds)

    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-2:] == ["size_third", "fold"]
    assert {row["volume"]: row["fold"] for row in rows} == folds
    assert len(read_patient_scores(path)) == len(scores)


def test_several_targets_are_rows_of_their_own(tmp_path, some_scores):
    path = tmp_path / "per_patient.csv"
    targets = {"whole": some_scores(), "core": some_scores(seed=1)}

    write_patient_scores(targets, path)

    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert next(iter(rows[0])) == "target"
    assert [row["target"] for row in rows] == ["whole"] * 7 + ["core"] * 7
    found = read_target_scores(path)
    assert list(found) == ["whole", "core"]
    for name, scores in targets.items():
        assert [one.dice for one in found[name]] == [one.dice for one in scores]
    assert read_patient_scores(path) == found["whole"]
