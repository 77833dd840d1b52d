import pytest
from pydantic import ValidationError

from components.register.record import DecisionRecord, log_record, read_record
from components.register.settings import RegisterSettings
from components.shared.scoring.comparison import Comparison, GroupDifference
from components.shared.tracking.server import connect
from tests.components.conftest import new_run


def record(**changes):
    group = GroupDifference(
        group="site/EZ",
        patients=1,
        candidate=0.7,
        reference=0.6,
        difference=0.1,
        standard_error=None,
    )
    comparison = Comparison(
        candidate=0.75,
        reference=0.7,
        difference=0.05,
        standard_error=0.01,
        confidence=0.95,
        low=0.02,
        high=0.08,
        groups=(group,),
        pairs={"TCGA_EZ_0001_19990101": (0.7, 0.6), "TCGA_CS_0002_19990101": (0.8, 0.8)},
    )
    values = {
        "promoted": True,
        "reason": "it is better",
        "model_name": "brainseg",
        "model_version": "4",
        "champion_version": "3",
        "dataset_id": "d" * 16,
        "split_id": "5" * 16,
        "threshold": 0.4,
        "champion_threshold": 0.5,
        "champion_origin_known": True,
        "metrics": {"patient_dice_mean": 0.75},
        "comparison": comparison,
        "earlier_decisions": 2,
        "earlier_on_same_patients": 1,
        "settings": RegisterSettings(margin=0.02),
    }
    return DecisionRecord(**(values | changes))


FIRST = {"champion_version": None, "champion_threshold": None, "comparison": None}


@pytest.mark.parametrize("changes", [{}, FIRST | {"promoted": False}])
def test_what_is_written_is_read_back(any_mlflow, changes):
    run_id, written = new_run(), record(**changes)
    log_record(connect(), run_id, written)
    assert read_record(run_id) == written


def test_the_run_shows_the_decision_in_lists(local_mlflow):
    run_id = new_run()
    log_record(connect(), run_id, record())
    run = connect().get_run(run_id).data
    assert run.tags["decision"] == "promoted"
    assert run.tags["decision_reason"] == "it is better"
    assert run.tags["model_version"] == "brainseg/4"
    assert run.tags["mlflow.note.content"] == (
        "Promoted to champion, version 4 of brainseg: it is better"
    )
    assert run.metrics == {
        "register/promoted": 1.0,
        "register/patients": 2.0,
        "register/champion_patient_dice_mean": 0.7,
        "register/difference": 0.05,
        "register/difference_low": 0.02,
        "register/difference_high": 0.08,
    }
    first = new_run()
    log_record(connect(), first, record(**FIRST, promoted=False))
    assert connect().get_run(first).data.metrics == {"register/promoted": 0.0}
    assert connect().get_run(first).data.tags["decision"] == "rejected"


def test_a_record_does_not_change():
    with pytest.raises(ValidationError):
        record().promoted = False
    assert record().model_uri == "models:/brainseg/4"
