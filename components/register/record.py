"""Record of a decision: written to MLflow, read by a retry, shown on the page."""

from collections.abc import Mapping
from typing import Literal

from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from pydantic import Field

from components.register.settings import RegisterSettings
from components.shared.config import Record
from components.shared.scoring.comparison import Comparison
from components.shared.scoring.metrics import HEADLINE, HIGH_SUFFIX, LOW_SUFFIX, interval_in_words
from components.shared.storage.outcome import Outcome, leave_outcome
from components.shared.storage.store import Store
from components.shared.tracking.refusals import explaining_files
from components.shared.tracking.runs import log_metrics, log_tags
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.tree import PIPELINE_RUN_TAG
from components.shared.tracking.view import DECISION_TAG, MODEL_VERSION_TAG

_RECORD = "register/decision.json"


class DecisionRecord(Record):
    """A decision about a registered version, with everything that it depends on.

    Attributes:
        promoted: True if the version is to become champion.
        reason: Reason in words with numbers.
        model_name: Name of the registered model.
        model_version: Number of the version that is decided about.
        champion_version: Number of the champion; `None` without a champion.
        dataset_id: Data set version of training and evaluation of the candidate.
        split_id: Split of training and evaluation of the candidate.
        threshold: Threshold of the candidate's scores.
        champion_threshold: Threshold of the champion's scores.
        champion_origin_known: True if the store has the champion's data set and split. Otherwise
            the champion may have been trained on some of the patients.
        metrics: Metrics of evaluate for the candidate on the test patients.
        comparison: Comparison of candidate and champion (the reference) on the same patients;
            `None` without a champion or without enough patients. It is that of the first target.
        earlier_decisions: Number of versions compared with this champion before.
        earlier_on_same_patients: Number of these compared on exactly the same patients.
        started_from: Model whose weights the candidate started from; empty without a warm start.
        settings: Limits of the rules.
        targets: Names of the targets.
        further: Comparisons of the other targets by name, which do not decide.
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
    started_from: str = ""
    settings: RegisterSettings
    targets: tuple[str, ...] = ()
    further: Mapping[str, Comparison] = Field(default_factory=dict)

    @property
    def model_uri(self) -> str:
        """`models:/name/version`."""
        return f"models:/{self.model_name}/{self.model_version}"

    @property
    def outcome(self) -> Literal["promoted", "rejected"]:
        """`promoted` or `rejected`."""
        return "promoted" if self.promoted else "rejected"


def log_record(client: MlflowClient, run_id: str, record: DecisionRecord) -> None:
    """Logs a decision to the run: as a JSON file, and as tags and metrics for lists of runs."""
    client.log_dict(run_id, record.model_dump(mode="json"), _RECORD)
    log_tags(client, run_id, outcome_tags(record))
    log_metrics(client, run_id, _metrics(record))


def outcome_tags(record: DecisionRecord) -> dict[str, str]:
    """Returns the tags with which a run shows the decision about its model."""
    return {
        DECISION_TAG: record.outcome,
        "decision_reason": record.reason,
        MODEL_VERSION_TAG: f"{record.model_name}/{record.model_version}",
        MLFLOW_RUN_NOTE: _note(record),  # the run's description
    }


@explaining_files()
def read_record(run_id: str) -> DecisionRecord:
    """Reads the record that `log_record` wrote."""
    return DecisionRecord.model_validate(load_dict(f"runs:/{run_id}/{_RECORD}"))


def leave_decision(client: MlflowClient, run_id: str, record: DecisionRecord, store: Store) -> None:
    """Stores a decision as the outcome of the pipeline run of a training's run."""
    run, metrics = client.get_run(run_id), record.metrics
    names = [f"{name}{suffix}" for name in HEADLINE for suffix in ("", LOW_SUFFIX, HIGH_SUFFIX)]
    outcome = Outcome(
        kind=record.outcome,
        reason=record.reason,
        dataset_id=record.dataset_id,
        model=record.model_uri,
        experiment_id=run.info.experiment_id,
        mlflow_run_id=pipeline_run_of(client, run_id),
        headline=f"patient Dice {metrics['patient_dice_mean']:.3f} over {metrics['patients']:.0f} "
        f"test patients ({interval_in_words(metrics)})",
        metrics={name: metrics[name] for name in names if name in metrics},
    )
    leave_outcome(store, run.data.tags[PIPELINE_RUN_TAG], outcome)


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
