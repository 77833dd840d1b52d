"""MLflow runs of a pipeline run: one for itself and one for each of its trainings."""

from datetime import datetime

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from components.shared.storage.store import Store
from components.shared.tracking.election import claim, find_or_create
from components.shared.tracking.identity import Training, pipeline_run_digest, remove_checkpoints
from components.shared.tracking.origin import origin_tags
from components.shared.tracking.refusals import explaining
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


@explaining()
def open_run(training: Training, *, name: str, run_name: str = "") -> str:
    """Returns the id of a training's MLflow run, a child of its pipeline run's.

    Both are created unless an earlier step or attempt did so. Runs of another tool are used
    instead of a second tree (`components.shared.tracking.task`): the run in `MLFLOW_RUN_ID`
    becomes that of the first training that asks for it, and the parent for the next ones. With
    `KFP_MLFLOW_CONFIG` alone the training's run becomes a child of the run in there.

    Args:
        training: Identity of the training.
        name: Display name in addition to the label, e.g. the network.
        run_name: Display name of the pipeline run, e.g. the preset.

    Raises:
        UserError: If MLflow cannot be used or does not have the given run.
    """
    client = connect()
    given = given_run(client)
    outer = given or plugin_run(client)
    if outer:
        log_tags(client, pipeline_run_of(client, outer), _pipeline_tags(training))
    if given and claim(client, given, training.digest):
        log_tags(client, given, _tags(training))
        return given
    parent = outer or _open_pipeline_run(client, training, run_name)
    return find_or_create(
        client,
        client.get_run(parent).info.experiment_id,
        training.digest,
        name=_title(training.label, name, data=training.dataset_id[:8]),
        tags={**origin_tags(), **_tags(training), MLFLOW_PARENT_RUN_ID: parent},
    )


def end_pipeline_run(client: MlflowClient, run_id: str, store: Store) -> None:
    """Ends the runs of a pipeline run and deletes its checkpoints.

    The last step of every graph calls this. A failed training keeps its status, and then the
    pipeline run has failed too.
    """
    given = client.get_run(run_id)
    for run in trainings_of(client, given):
        remove_checkpoints(store, training_digest(run))
        if run.info.status == "RUNNING":
            set_status(client, run.info.run_id, "FINISHED")
    set_pipeline_status(client, given, "FINISHED")


def _open_pipeline_run(client: MlflowClient, training: Training, run_name: str) -> str:
    tags = _pipeline_tags(training)
    return find_or_create(
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
    # MLflow's list cuts names after about twenty letters and has a column for the data set
    return " ".join([*filter(None, words), f"{datetime.now():%Y-%m-%d %H:%M}", data])
