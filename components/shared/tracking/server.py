"""Connection to MLflow, and its errors as messages with advice.

The server is set by `MLFLOW_TRACKING_URI` and the other standard `MLFLOW_*` variables.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from components.shared.environment import environment
from components.shared.errors import OutageError, UserError
from components.shared.process import importing
from components.shared.tracking.address import sqlite_file

# MLflow logs every step of its own. Not in shared/process.py: it sets its level itself when it is
# imported
logging.getLogger("mlflow").setLevel(logging.WARNING)

EXPERIMENT = "brainseg"

_PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}

# With MLflow's own limits a call to a server that is down hangs for twenty minutes. These just
# outlast the restart of a server (half a minute).
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # fills logs with carriage returns
    "MLFLOW_DISABLE_TELEMETRY": "true",  # clusters without internet, and without consent
}

_ADVICE = {
    "PERMISSION_DENIED": (
        "its --allowed-hosts must name this host and port, and the user needs the right to it"
    ),
    "ENDPOINT_NOT_FOUND": "the address must be that of an MLflow server",
    "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN",
    "FEATURE_DISABLED": "start it with --enable-workspaces, or set workspacesEnabled: false for "
    "KFP's MLflow plugin",
}

# With MLFLOW_TRACKING_AUTH=kubernetes or kubernetes-namespaced, which KFP's MLflow plugin sets,
# MLflow's own provider sends the token of the pod's ServiceAccount
# (mlflow/tracking/request_auth/kubernetes_request_auth_provider.py). The rights are those of
# KFP's proposals/12862-mlflow-integration, and the rights on models that register needs.
_KUBERNETES_ADVICE = {
    "PERMISSION_DENIED": (
        "the pod's ServiceAccount needs get, list, create and update on experiments and "
        "registeredmodels of mlflow.kubeflow.org, or the server's --allowed-hosts this address"
    ),
    "UNAUTHENTICATED": (
        "MLFLOW_TRACKING_AUTH sends the ServiceAccount's token, which this server refuses: it "
        "must be a server that asks Kubernetes; else unset MLFLOW_TRACKING_AUTH and set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN"
    ),
}

# mlflow/utils/rest_utils.py, and workspace_rest_store_mixin.py for a server with workspaces,
# which reports a refusal by its status only
_NO_ANSWER = re.compile(r"failed with (timeout )?exception|Failed to query \S+: 5\d\d ")
_REFUSAL = re.compile(r"Failed to query \S+: (\d{3}) ")
_REFUSALS = {"401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED"}

# Errors that MLflow reports as if the server had not answered, or without a code
_CAUSES = {
    "Could not determine Kubernetes": (
        "the pod has no token of a ServiceAccount",
        "set automountServiceAccountToken in the pod or its ServiceAccount",
    ),
    "'kubernetes' package is required": (
        "the package kubernetes is not installed",
        "install the extra trainer, or unset MLFLOW_TRACKING_AUTH",
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "its certificate is not trusted",
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its certificate authority",
    ),
}


def connect() -> MlflowClient:
    """Returns a client of `MLFLOW_TRACKING_URI` after one call to it.

    Raises:
        UserError: If the variable is not set, or the server does not answer within about
            15 s or refuses.
    """
    uri = tracking_uri()
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        with importing():  # for a database the client imports SQLAlchemy
            client = MlflowClient(uri)
        with environment(_PROBE):
            client.search_experiments(max_results=1)
    except MlflowException as error:
        raise explain(error) from error
    return client


def tracking_uri() -> str:
    """Returns `MLFLOW_TRACKING_URI`.

    Raises:
        UserError: If it is not set, or names a SQLite file that does not exist.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise UserError(
            "MLFLOW_TRACKING_URI is not set; set it to a server (http://host:5000) or a local file "
            "(sqlite:////folder/mlflow.db)"
        )
    path = sqlite_file(uri)
    if path is not None and not path.is_file():
        # MLflow would create the file, and two steps at once would corrupt it
        raise UserError(f"there is no MLflow file {path}; create it with `brainseg run`")
    return uri


def explain(error: MlflowException) -> UserError:
    """Turns MLflow's error into a message with advice; an `OutageError` if it did not answer."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    reason, advice = _cause(error) or (_reason(error), _advice(error))
    kind = OutageError if is_outage(error) else UserError
    return kind(f"MLflow at {uri} cannot be used: {reason}; {advice}")


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turns an error of MLflow into one message, as `connect` does for its own call."""
    try:
        yield
    except MlflowException as error:
        raise explain(error) from error


def is_outage(error: MlflowException) -> bool:
    """Returns whether the server did not answer; a refusal is an answer."""
    is_silent = not isinstance(error, RestException) and _NO_ANSWER.search(str(error.message))
    return bool(is_silent) and _cause(error) is None


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
    return find_experiment(client) or _create_experiment(client, artifacts)


def find_experiment(client: MlflowClient) -> str | None:
    """Returns the id of the experiment with the name of the runs; `None` if it does not exist.

    Raises:
        UserError: If the experiment was deleted, or the server refuses.
    """
    name = _experiment_name()
    try:
        found = client.get_experiment_by_name(name)
    except MlflowException as error:
        raise explain(error) from error
    if found is None:
        return None
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow's experiment {name!r} was deleted; restore it with `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}` or set MLFLOW_EXPERIMENT_NAME"
        )
    return str(found.experiment_id)


def _experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def _create_experiment(client: MlflowClient, artifacts: str | None) -> str:
    try:
        return str(client.create_experiment(_experiment_name(), artifact_location=artifacts))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise explain(error) from error
        return open_experiment(client)  # another process was faster


def _cause(error: MlflowException) -> tuple[str, str] | None:
    found = (cause for words, cause in _CAUSES.items() if words in str(error.message))
    return next(found, None)


def _advice(error: MlflowException) -> str:
    by_kubernetes = os.environ.get("MLFLOW_TRACKING_AUTH", "").startswith("kubernetes")
    advice = {**_ADVICE, **(_KUBERNETES_ADVICE if by_kubernetes else {})}
    refusal = _REFUSAL.search(str(error.message))
    code = _REFUSALS.get(refusal[1], "") if refusal else error.error_code
    return advice.get(code, "start the server, or set MLFLOW_TRACKING_URI to a running one")


def _reason(error: MlflowException) -> str:
    text = str(error.message)
    for known in ("Connection refused", "Name or service not known", "timed out"):
        if known in text:
            return known.lower()
    text = re.sub(r"API request to .* error code (\d+) != 200. Response body:", r"HTTP \1", text)
    return text if len(text) < 300 else text[:300] + "..."
