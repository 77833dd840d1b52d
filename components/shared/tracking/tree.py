"""The MLflow runs of a pipeline run: one for itself and one for each of its trainings."""

from datetime import datetime

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from components.shared.storage.store import Store
from components.shared.tracking.election import claim, find_or_make
from components.shared.tracking.identity import Training, pipeline_run_digest, remove_checkpoints
from components.shared.tracking.origin import origin_tags
from components.shared.tracking.runs import log_tags
from components.shared.tracking.server import connect, open_experiment
from components.shared.tracking.status import (
    PIPELINE_TAG,
    TRAINING_TAG,
    pipeline_run_of,
    set_pipeline_status,
    set_status,
    training_digest,
    trainings_of,
)
from components.shared.tracking.task import given_run, plugin_run

PIPELINE_RUN_TAG = "kfp_run_id"


def open_run(training: Training, *, name: str, run_name: str = "") -> str:
    """Returns the id of a training's MLflow run, nested in that of its pipeline run.

    Both are found if an earlier step or attempt made them, else made. Where another tool has
    made runs, no second tree grows beside them (`components.shared.tracking.task`): the run that
    `MLFLOW_RUN_ID` names is joined, and becomes the training's. It is joined by one training, the
    first who asks; the next gets a run nested in it. With `KFP_MLFLOW_CONFIG` alone the
    training's run is nested in the one that this names.

    Args:
        training: Which training.
        name: What people call it beside its label, e.g. the network.
        run_name: What people call the pipeline run, e.g. the preset.

    Raises:
        UserError: If MLflow cannot be used or has no run of that name.
    """
    client = connect()
    given = given_run(client)
    above = given or plugin_run(client)
    if above:
        log_tags(client, pipeline_run_of(client, above), _pipeline_tags(training))
    if given and claim(client, given, training.digest):
        log_tags(client, given, _tags(training))
        return given
    parent = above or _open_pipeline_run(client, training, run_name)
    return find_or_make(
        client,
        client.get_run(parent).info.experiment_id,
        training.digest,
        name=_title(training.label, name, data=training.dataset_id[:8]),
        tags={**origin_tags(), **_tags(training), MLFLOW_PARENT_RUN_ID: parent},
    )


def end_pipeline_run(client: MlflowClient, run_id: str, store: Store) -> None:
    """Ends the runs of a pipeline run and deletes its checkpoints.

    The last step of a graph calls this, whichever it is. A training that failed keeps this
    status, and the pipeline run has then failed too.

    Args:
        client: Of the tracking server.
        run_id: The pipeline run's run or any training's.
        store: Where the checkpoints are.
    """
    given = client.get_run(run_id)
    for run in trainings_of(client, given):
        remove_checkpoints(store, training_digest(run))
        if run.info.status == "RUNNING":
            set_status(client, run.info.run_id, "FINISHED")
    set_pipeline_status(client, given, "FINISHED")


def _open_pipeline_run(client: MlflowClient, training: Training, run_name: str) -> str:
    tags = _pipeline_tags(training)
    return find_or_make(
        client,
        open_experiment(client),
        tags[PIPELINE_TAG],
        name=_title(run_name or "brainseg", data=training.dataset_id[:8]),
        tags={**origin_tags(), **tags},
    )


def _pipeline_tags(training: Training) -> dict[str, str]:
    return {
        PIPELINE_RUN_TAG: training.pipeline_run,
        PIPELINE_TAG: pipeline_run_digest(training.pipeline_run),
    }


def _tags(training: Training) -> dict[str, str]:
    tags = {
        **_pipeline_tags(training),
        TRAINING_TAG: training.digest,
        "label": training.label,
        "dataset_id": training.dataset_id,
        "split_id": training.split_id,
    }
    return {key: value for key, value in tags.items() if value}


def _title(*words: str, data: str) -> str:
    # MLflow's list cuts names after some twenty letters and has a column for the data set
    return " ".join([*filter(None, words), f"{datetime.now():%Y-%m-%d %H:%M}", data])
