"""The run that KFP's MLflow plugin created for this task.

With the plugin (2.17) a pipeline run has a run, with a child for each task. The driver creates it
before the first attempt. The launcher logs the task's parameters and KFP metrics to it and ends
it after *every* attempt (backend/src/v2/common/plugins/mlflow/handler.go;
backend/src/v2/component/launcher_v2.go). If the administrator enables injection, its id is in
`MLFLOW_RUN_ID`. Otherwise a task knows only the pipeline run's run, in `KFP_MLFLOW_CONFIG`, and
the training gets a run next to those of the tasks.

A training's metrics and model belong to the training's run, whichever task measures them:
evaluate and register get its id from train and log there. Their own runs name that training, so
that they are not mistaken for one.

The plugin ends the runs that it created. We change the status in one case: a retried task finds
its run ended, and sets it running again.
"""

import os
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from components.shared.environment import plugin_config
from components.shared.errors import UserError
from components.shared.tracking.status import parent_of

TRAINING_RUN_TAG = "training_run_id"

_SHARED_TAGS = ("label", "dataset_id", "split_id")


def given_run(client: MlflowClient) -> str | None:
    """Returns the run in `MLFLOW_RUN_ID`; `None` if it is not set.

    Raises:
        UserError: If the server has no such run.
    """
    return _require(client, "MLFLOW_RUN_ID", os.environ.get("MLFLOW_RUN_ID", ""))


def plugin_run(client: MlflowClient) -> str | None:
    """Returns the pipeline run's run of KFP's plugin; `None` without the plugin.

    Raises:
        UserError: If the server has no such run.
    """
    return _require(client, "KFP_MLFLOW_CONFIG", plugin_config().get("parentRunId", ""))


def resume_task_run(client: MlflowClient, training_run: str) -> None:
    """Sets this task's run running, with tags that name the training it works on.

    Does nothing without a run of the plugin: a run set in `MLFLOW_RUN_ID` by hand is started and
    ended by hand.

    Args:
        client: Client of the tracking server.
        training_run: Run of the training.
    """
    own = given_run(client) if plugin_config() else None
    if own is None:
        return
    if client.get_run(own).info.status != "RUNNING":
        client.update_run(own, "RUNNING")
    found = client.get_run(training_run).data.tags
    shared = {name: found[name] for name in _SHARED_TAGS if name in found}
    tag_task_run(client, training_run, {TRAINING_RUN_TAG: training_run, **shared})


def tag_task_run(client: MlflowClient, training_run: str, tags: Mapping[str, str]) -> None:
    """Sets tags on this task's run if it is neither the training's run nor its parent."""
    own = given_run(client) if plugin_config() else None
    if own and own not in (training_run, parent_of(client.get_run(training_run))):
        client.log_batch(own, tags=[RunTag(name, value) for name, value in tags.items()])


def _require(client: MlflowClient, variable: str, run_id: str) -> str | None:
    if not run_id:
        return None
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = None
    if found is None or found.info.lifecycle_stage != "active":
        raise UserError(
            f"{variable} names run {run_id}: MLflow at {client.tracking_uri} has no such run; "
            "unset the variable or give a run of this server"
        )
    return run_id
