"""The MLflow runs of a pipeline run: one for itself and one for each of its trainings."""

import os
from datetime import datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from components.shared.errors import UserError
from components.shared.storage.store import Store
from components.shared.tracking.election import find_or_make
from components.shared.tracking.identity import Training, pipeline_run_digest, remove_checkpoints
from components.shared.tracking.origin import origin_tags
from components.shared.tracking.runs import log_tags
from components.shared.tracking.server import connect, open_experiment, tracking_uri
from components.shared.tracking.status import (
    JOINED_TAG,
    parent_of,
    set_parent_status,
    set_status,
    training_digest,
    trainings_of,
)

PIPELINE_RUN_TAG = "kfp_run_id"


def open_run(training: Training, *, name: str, run_name: str = "") -> str:
    """Returns the id of a training's MLflow run, nested in that of its pipeline run.

    Both are found if an earlier step or attempt made them, else made. A run named by
    `MLFLOW_RUN_ID` is joined instead; the one that it is nested in is then the pipeline run's.

    Args:
        training: Which training.
        name: What people call it beside its label, e.g. the network.
        run_name: What people call the pipeline run, e.g. the preset.

    Raises:
        UserError: If MLflow cannot be used or has no run `MLFLOW_RUN_ID`.
    """
    client = connect()
    joined = os.environ.get("MLFLOW_RUN_ID")
    if joined:
        _require_run(client, joined)
        log_tags(client, joined, {**_tags(training), JOINED_TAG: training.digest})
        return joined
    experiment, data = open_experiment(client), training.dataset_id[:8]
    parent = find_or_make(
        client,
        experiment,
        pipeline_run_digest(training.pipeline_run),
        name=_title(run_name or "brainseg", data=data),
        tags={**origin_tags(), PIPELINE_RUN_TAG: training.pipeline_run},
    )
    return find_or_make(
        client,
        experiment,
        training.digest,
        name=_title(training.label, name, data=data),
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
    run = client.get_run(run_id)
    parent, name = parent_of(run) or run_id, run.data.tags.get(PIPELINE_RUN_TAG)
    for training in list(trainings_of(client, parent)) or [run]:
        if training.data.tags.get(PIPELINE_RUN_TAG) != name:
            continue  # beneath a run that several pipeline runs have joined
        remove_checkpoints(store, training_digest(training))
        if training.info.status == "RUNNING":
            set_status(client, training.info.run_id, "FINISHED")
    set_parent_status(client, parent, "FINISHED")


def _require_run(client: MlflowClient, run_id: str) -> None:
    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_RUN_ID={run_id}: MLflow at {tracking_uri()} has no such run; unset the "
            "variable or give a run of this server"
        ) from error


def _tags(training: Training) -> dict[str, str]:
    tags = {
        PIPELINE_RUN_TAG: training.pipeline_run,
        "label": training.label,
        "dataset_id": training.dataset_id,
        "split_id": training.split_id,
    }
    return {key: value for key, value in tags.items() if value}


def _title(*words: str, data: str) -> str:
    # MLflow's list cuts names after some twenty letters and has a column for the data set
    return " ".join([*filter(None, words), f"{datetime.now():%Y-%m-%d %H:%M}", data])
