"""What was decided and by what: written to MLflow, read back by a retry, shown on the page."""

from collections.abc import Mapping
from typing import Literal

from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from components.register.settings import RegisterSettings
from components.shared.config import Record
from components.shared.scoring.comparison import Comparison
from components.shared.tracking.runs import log_metrics, log_tags
from components.shared.tracking.view import DECISION_TAG, MODEL_VERSION_TAG

_RECORD = "register/decision.json"


class DecisionRecord(Record):
    """A decision about a registered version, with all that it was made from.

    Attributes:
        promoted: Whether the version was to become champion.
        reason: Why or why not, in words with numbers.
        model_name: The registered model.
        model_version: The version that was decided about.
        champion_version: What it was compared with; `None` where there was no champion.
        dataset_id: What the candidate learned from and was evaluated on.
        split_id: Which part of that.
        threshold: What the candidate was scored with.
        champion_threshold: What the champion was scored with.
        champion_origin_known: Whether it is known what the champion learned from; if not, it may
            have seen some of the patients.
        metrics: What evaluate measured for the candidate on the test patients.
        comparison: Candidate and champion (the reference) on the same patients; `None` where
            there was no champion or nobody to compare on.
        earlier_decisions: How many versions were compared with this champion before.
        earlier_on_same_patients: How many of these on the very same patients.
        settings: The rules.
    """

    promoted: bool
    reason: str
    model_name: str
    model_version: str
    champion_version: str | None
    dataset_id: str
    split_id: str
    threshold: float
    champion_threshold: float | None
    champion_origin_known: bool
    metrics: Mapping[str, float]
    comparison: Comparison | None
    earlier_decisions: int
    earlier_on_same_patients: int
    settings: RegisterSettings

    @property
    def model_uri(self) -> str:
        """`models:/name/version`."""
        return f"models:/{self.model_name}/{self.model_version}"

    @property
    def outcome(self) -> Literal["promoted", "rejected"]:
        """`promoted` or `rejected`."""
        return "promoted" if self.promoted else "rejected"


def log_record(client: MlflowClient, run_id: str, record: DecisionRecord) -> None:
    """Writes a decision to the run: as a file for machines, as tags and metrics for lists."""
    client.log_dict(run_id, record.model_dump(mode="json"), _RECORD)
    log_tags(client, run_id, outcome_tags(record))
    log_metrics(client, run_id, _metrics(record))


def outcome_tags(record: DecisionRecord) -> dict[str, str]:
    """Tags of a run that say what became of its model."""
    return {
        DECISION_TAG: record.outcome,
        "decision_reason": record.reason,
        MODEL_VERSION_TAG: f"{record.model_name}/{record.model_version}",
        MLFLOW_RUN_NOTE: _note(record),  # the run's description
    }


def read_record(run_id: str) -> DecisionRecord:
    """Reads what `log_record` wrote."""
    return DecisionRecord.model_validate(load_dict(f"runs:/{run_id}/{_RECORD}"))


def _metrics(record: DecisionRecord) -> dict[str, float]:
    metrics = {"register/promoted": float(record.promoted)}
    if record.comparison:
        metrics |= {
            "register/patients": float(len(record.comparison.pairs)),
            "register/champion_patient_dice_mean": record.comparison.reference,
            "register/difference": record.comparison.difference,
            "register/difference_low": record.comparison.low,
            "register/difference_high": record.comparison.high,
        }
    return metrics


def _note(record: DecisionRecord) -> str:
    outcome = "Promoted to champion" if record.promoted else "Not promoted"
    return f"{outcome}, version {record.model_version} of {record.model_name}: {record.reason}"
