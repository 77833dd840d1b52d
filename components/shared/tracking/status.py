"""A pipeline run's MLflow run, those of its trainings beneath it, and how they stand."""

from collections.abc import Iterator
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from components.shared.tracking.election import IDENTITY

JOINED_TAG = "brainseg.joined"  # digest of the training, on a run that another tool made

Status = Literal["RUNNING", "FAILED", "FINISHED"]


def parent_of(run: Run) -> str | None:
    """The id of the run that a run is nested in."""
    parent: str | None = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    return parent


def trainings_of(client: MlflowClient, parent: str) -> Iterator[Run]:
    """The runs of a pipeline run's trainings, with those joined by `MLFLOW_RUN_ID`."""
    experiment = client.get_run(parent).info.experiment_id
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    for run in client.search_runs([experiment], filter_string=query):
        if training_digest(run):
            yield run


def find_training(client: MlflowClient, digest: str) -> list[Run]:
    """The runs of a training, in whatever experiment; deleted ones are none."""
    experiments = [found.experiment_id for found in client.search_experiments(max_results=10_000)]
    return [
        run
        for tag in (IDENTITY, JOINED_TAG)
        for run in client.search_runs(experiments, filter_string=f"tags.`{tag}` = '{digest}'")
    ]


def training_digest(run: Run) -> str:
    """Which training a run is of; empty for other tools' runs."""
    tags = run.data.tags
    return str(tags.get(IDENTITY) or tags.get(JOINED_TAG, ""))


def set_status(client: MlflowClient, run_id: str, status: Status) -> None:
    """Sets the status of a training's run, and with it that of the run above.

    A pipeline run has failed while one of its trainings has. Runs that another tool made keep
    their status: who made them ends them.
    """
    run = client.get_run(run_id)
    _set(client, run, status)
    parent = parent_of(run)
    if parent:
        set_parent_status(client, parent, status)


def set_parent_status(client: MlflowClient, parent: str, status: Status) -> None:
    """Sets the status of a pipeline run's run: failed while one of its trainings is."""
    failed = any(run.info.status == "FAILED" for run in trainings_of(client, parent))
    _set(client, client.get_run(parent), "FAILED" if failed else status)


def _set(client: MlflowClient, run: Run, status: Status) -> None:
    if IDENTITY not in run.data.tags or run.info.status == status:
        return
    if status == "RUNNING":
        client.update_run(run.info.run_id, status)
    else:
        client.set_terminated(run.info.run_id, status)
