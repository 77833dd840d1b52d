"""Connection to MLflow.

The server is set by `MLFLOW_TRACKING_URI` and the other standard `MLFLOW_*` variables.
"""

import functools
import logging
import os
import re
import sqlite3
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.shared.environment import environment
from components.shared.errors import UserError
from components.shared.process import importing
from components.shared.tracking.address import sqlite_file
from components.shared.tracking.refusals import explaining, explaining_files

# MLflow logs every step of its own. Not in shared/process.py: it sets its level itself when it is
# imported
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what we raise

EXPERIMENT = "brainseg"

# A busy server of one processor was seen to take more than 5 s for an answer.
_PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}

# With MLflow's own limits a call to a server that is down hangs for twenty minutes. These just
# outlast the restart of a server (half a minute).
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # fills logs with carriage returns
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # which is for results
    "MLFLOW_DISABLE_TELEMETRY": "true",  # clusters without internet, and without consent
}

_LOCKED_S = 150  # of another writer of a SQLite file
_HOST = re.compile(r"[\w-][\w.-]*(:\d+)?(/.*)?")


class Client(MlflowClient):
    """MLflow's client; what the artifact storage refuses is raised as a `UserError`.

    Its other methods that store files call `log_artifact`.
    """

    log_artifact = explaining_files()(MlflowClient.log_artifact)
    log_model_artifacts = explaining_files()(MlflowClient.log_model_artifacts)
    list_artifacts = explaining_files()(MlflowClient.list_artifacts)


@explaining()
def connect() -> Client:
    """Returns a client of `MLFLOW_TRACKING_URI` after one call to it.

    Raises:
        UserError: If the variable is not set, or the server does not answer within about
            half a minute (in a pod: three minutes) or refuses.
    """
    uri = tracking_uri()
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    if "sql" in uri.partition(":")[0]:
        prepare_database(uri)
    # A pod may start while the server restarts, and Kubeflow's default rule does not retry it
    with environment({} if "KUBERNETES_SERVICE_HOST" in os.environ else _PROBE):
        with importing():  # for a database the client imports SQLAlchemy
            client = Client(uri)
        client.search_experiments(max_results=1)
    return client


def tracking_uri() -> str:
    """Returns `MLFLOW_TRACKING_URI`.

    Raises:
        UserError: If it is not set, is no URI, or names a SQLite file that does not exist.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    known = "a server (http://host:5000) or a local file (sqlite:////folder/mlflow.db)"
    if not uri:
        raise UserError(f"MLFLOW_TRACKING_URI is not set; set it to {known}")
    if "://" not in uri and not uri.startswith(("databricks", "arn:")):  # names of vendors
        hint = f" (http://{uri}?)" if _HOST.fullmatch(uri) else ""
        raise UserError(f"MLFLOW_TRACKING_URI={uri} has no scheme; set it to {known}{hint}")
    path = sqlite_file(uri)
    if path is not None and not path.is_file():
        # MLflow would create the file, and two steps at once would corrupt it
        raise UserError(f"there is no MLflow file {path}; create it with `brainseg run`")
    return uri


def prepare_database(uri: str) -> None:
    """Connects once to the server of a database, or makes MLflow wait for writers of a file.

    MLflow itself repeats a connection that fails for an hour, and waits 20 s for a lock.

    Raises:
        UserError: If the server of the database cannot be used, or its driver is missing.
    """
    if uri.startswith("sqlite"):
        _wait_for_writers()
        return
    with explaining_files(), environment({"PGCONNECT_TIMEOUT": "5"}):
        from sqlalchemy import create_engine

        create_engine(uri).connect().close()


@functools.cache
def _wait_for_writers() -> None:
    from sqlalchemy import Engine, event

    def wait() -> str:
        return f"PRAGMA busy_timeout = {1000 * _LOCKED_S:.0f}"

    @event.listens_for(Engine, "connect")
    def wait_at_first(connection: Any, _: object) -> None:  # noqa: ANN401  # of any driver
        if isinstance(connection, sqlite3.Connection):
            connection.execute(wait())

    # mlflow/store/db/utils.py sets its own limit at the start of every session
    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def wait_in_sessions(*call: Any) -> tuple[str, Any]:  # noqa: ANN401
        _, _, statement, parameters, *_ = call
        return (wait() if "PRAGMA busy_timeout" in statement else statement), parameters


@explaining()
def open_experiment(client: MlflowClient, artifacts: str | None = None) -> str:
    """Returns the id of the experiment of the runs; creates it if it does not exist.

    Args:
        client: Client of the tracking server.
        artifacts: URI of the files of its runs, for a new experiment.

    Raises:
        UserError: If the experiment was deleted, or the server refuses.
    """
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given and artifacts is None:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return open_experiment(client)  # another process was faster
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow's experiment {name!r} was deleted; restore it with `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}` or set MLFLOW_EXPERIMENT_NAME"
        )
    return str(found.experiment_id)
