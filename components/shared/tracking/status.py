"""Parent and child MLflow runs of a pipeline run, and their status."""

from collections.abc import Iterator
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from components.shared.tracking.election import IDENTITY

# digests: of the pipeline run, on its run and those of its trainings; of the training, on its run
PIPELINE_TAG, TRAINING_TAG = "brainseg.pipeline", "brainseg.training"

Status = Literal["RUNNING", "FAILED", "FINISHED"]


def parent_of(run: Run) -> str | None:
    """Returns the id of the parent run."""
    parent: str | None = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    return parent


def pipeline_run_of(client: MlflowClient, run_id: str) -> str:
    """Returns the outermost parent of a run, which is that of its pipeline run.

    KFP's plugin inserts a run for each loop between the two. A run joined by `MLFLOW_RUN_ID`
    without a parent is returned itself.
    """
    parent = parent_of(client.get_run(run_id))
    return pipeline_run_of(client, parent) if parent else run_id


def trainings_of(client: MlflowClient, run: Run) -> Iterator[Run]:
    """Yields the runs of all trainings in the pipeline run of a run."""
    digest = run.data.tags.get(PIPELINE_TAG, "")
    query = f"tags.`{PIPELINE_TAG}` = '{digest}'"
    for found in client.search_runs([run.info.experiment_id], filter_string=query):
        if training_digest(found):
            yield found


def find_training(client: MlflowClient, digest: str) -> list[Run]:
    """Returns the runs of a training in all experiments, without deleted ones."""
    experiments = [found.experiment_id for found in client.search_experiments(max_results=10_000)]
    return list(client.search_runs(experiments, f"tags.`{TRAINING_TAG}` = '{digest}'"))


def training_digest(run: Run) -> str:
    """Returns the digest of a run's training; empty for other runs."""
    return str(run.data.tags.get(TRAINING_TAG, ""))


def set_status(client: MlflowClient, run_id: str, status: Status) -> None:
    """Sets the status of a training's run and of its pipeline run's.

    Runs created by another tool keep their status: that tool ends them.
    """
    run = client.get_run(run_id)
    _set(client, run, status)
    set_pipeline_status(client, run, status)


def set_pipeline_status(client: MlflowClient, run: Run, status: Status) -> None:
    """Sets the status of a run's pipeline run: failed while one of its trainings is."""
    outermost = client.get_run(pipeline_run_of(client, run.info.run_id))
    failed = any(found.info.status == "FAILED" for found in trainings_of(client, run))
    _set(client, outermost, "FAILED" if failed else status)


def _set(client: MlflowClient, run: Run, status: Status) -> None:
    if IDENTITY not in run.data.tags or run.info.status == status:
        return
    if status == "RUNNING":
        client.update_run(run.info.run_id, status)
    else:
        client.set_terminated(run.info.run_id, status)
