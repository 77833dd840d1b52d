import pytest

from components.radiogenomics.results import Measured, analyze, read_subtypes
from components.radiogenomics.shape import FEATURES
from components.shared.dataset.manifest import make_manifest
from components.shared.errors import UserError


def measured(patient, value, masks="expert", is_unseen=True, scan=1):
    features = dict.fromkeys(FEATURES, value)
    return Measured(
        volume=f"{patient}_{scan}",
        patient=patient,
        masks=masks,
        is_unseen=is_unseen,
        features=features,
    )


EXPERT = [
    measured(name, value, is_unseen=name > "c")
    for name, value in zip("abcdefg", range(7), strict=True)
]
PREDICTED = [
    measured(name, value, "predicted") for name, value in zip("defg", [3, 4, 5, 6], strict=True)
]
SUBTYPES = {"RNASeqCluster": {name: float(name > "d") for name in "abcdefg"}}


def test_seen_patients_count_for_expert_masks_only():
    found = analyze([*EXPERT, *PREDICTED], SUBTYPES, has_model=True)
    counted = {group: tests[0].patients for group, tests in found.associations.items()}
    assert counted == {"expert_all": 7, "expert_unseen": 4, "predicted_unseen": 4}
    assert {one.patients for one in found.agreement.values()} == {4}


def test_the_agreement_is_over_patients_that_both_have():
    found = analyze(
        [*EXPERT, *PREDICTED[1:], measured("d", None, "predicted")], SUBTYPES, has_model=True
    )
    assert found.agreement["angular_sd"].patients == 3
    assert found.metrics["icc_angular_sd"] == 1
    assert "p_predicted_unseen/angular_sd/RNASeqCluster" not in found.metrics  # one cluster


def test_without_a_model_only_all_expert_masks_are_tested():
    found = analyze([*EXPERT], SUBTYPES, has_model=False)
    assert list(found.associations) == ["expert_all"]
    assert found.agreement == {}
    assert set(found.metrics) == {f"p_expert_all/{feature}/RNASeqCluster" for feature in FEATURES}


def test_scans_of_a_patient_count_once():
    scans = [*EXPERT, measured("a", 100.0, scan=2, is_unseen=False)]
    found = analyze(scans, SUBTYPES, has_model=False)
    assert found.associations["expert_all"][0].patients == 7
    # the patient is now above the median, with a mean of 50
    assert found.metrics != analyze(EXPERT, SUBTYPES, has_model=False).metrics


def test_empty_columns_are_left_out_and_none_at_all_is_refused(make_entry):
    manifest = make_manifest([make_entry(1), make_entry(2)])
    assert set(read_subtypes(manifest, ["histological_type", "RPPACluster"])) == {
        "histological_type"
    }
    with pytest.raises(UserError, match="no value in RPPACluster, x; set"):
        read_subtypes(manifest, ["RPPACluster", "x"])
