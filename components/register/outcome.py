"""Outcome of a pipeline run with a decision, stored for the notify step."""

from mlflow import MlflowClient

from components.register.record import DecisionRecord
from components.shared.scoring.metrics import HEADLINE, HIGH_SUFFIX, LOW_SUFFIX, interval_in_words
from components.shared.storage.outcome import Outcome, leave_outcome
from components.shared.storage.store import Store
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.tree import PIPELINE_RUN_TAG


def leave_decision(client: MlflowClient, run_id: str, record: DecisionRecord, store: Store) -> None:
    """Stores a decision as the outcome of the pipeline run.

    Args:
        client: Client of the tracking server.
        run_id: MLflow run of the training run.
        record: Decision with its numbers.
        store: Store of the data set.
    """
    run = client.get_run(run_id)
    outcome = Outcome(
        kind=record.outcome,
        reason=record.reason,
        dataset_id=record.dataset_id,
        model=record.model_uri,
        experiment_id=run.info.experiment_id,
        mlflow_run_id=pipeline_run_of(client, run_id),
        headline=_headline(record),
        metrics={name: record.metrics[name] for name in _METRICS if name in record.metrics},
    )
    leave_outcome(store, run.data.tags[PIPELINE_RUN_TAG], outcome)


_METRICS = tuple(f"{name}{suffix}" for name in HEADLINE for suffix in ("", LOW_SUFFIX, HIGH_SUFFIX))


def _headline(record: DecisionRecord) -> str:
    score = record.metrics["patient_dice_mean"]
    patients = record.metrics["patients"]
    return (
        f"patient Dice {score:.3f} over {patients:.0f} test patients "
        f"({interval_in_words(record.metrics)})"
    )
