"""Errors of MLflow and of the storage of its artifacts, as messages with advice."""

import contextlib
import os
import re
from collections.abc import Iterator

from mlflow.exceptions import MlflowException, RestException

from components.shared.errors import OutageError, UserError

_ADVICE = {
    "PERMISSION_DENIED": (
        "its --allowed-hosts must name this host and port, and the user needs the right to it"
    ),
    "ENDPOINT_NOT_FOUND": "the address must be that of an MLflow server",
    "UNAUTHENTICATED": (
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a valid _TOKEN"
    ),
    "FEATURE_DISABLED": "start it with --enable-workspaces, or set workspacesEnabled: false for "
    "KFP's MLflow plugin",
    "TOO_LARGE": (
        "the proxy in front of it must accept files as large as a model (nginx: "
        "client_max_body_size 0)"
    ),
    "OUTAGE": "start the server, or set MLFLOW_TRACKING_URI to a running one",
}
_OTHER = "look for the reason in the server's log"

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

# Errors that MLflow reports as if the server had not answered, or without a code: words in them,
# the reason (empty: the error's text), and advice
_CAUSES = (
    (
        "Could not determine Kubernetes",
        "the pod has no token of a ServiceAccount",
        "set automountServiceAccountToken in the pod or its ServiceAccount",
    ),
    (
        "'kubernetes' package is required",
        "the package kubernetes is not installed",
        "install the extra trainer, or unset MLFLOW_TRACKING_AUTH",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted",
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its certificate authority",
    ),
    (
        "No module named 'boto3'",
        "its clients write artifacts to a bucket themselves, and the package boto3 is missing",
        "install the extra mlflow-s3, or start the server with --artifacts-destination",
    ),
    ("No module named", "", "install this package, or set MLFLOW_TRACKING_URI to a server"),
    ("Can't load plugin", "", "set MLFLOW_TRACKING_URI to a server (http://host:5000)"),
    ("unsupported URI", "", "set MLFLOW_TRACKING_URI to a server (http://host:5000)"),
    (
        "Unable to locate credentials",
        "its clients write artifacts to a bucket themselves, and there are no credentials for it",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or start the server with "
        "--artifacts-destination",
    ),
    ("database is locked", "another process writes to the file", "end it and try again"),
    ("No space left", "the disk is full", "free space"),
)

_STATUSES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 413: "TOO_LARGE"}
# mlflow/utils/rest_utils.py and request_utils.py: an answer's status in the text of the error
_STATUS = re.compile(r"(?:Failed to query \S+:|error code|Response status code:?) (\d{3})\b")
_SILENCE = re.compile(
    r"failed with (timeout )?exception|database is locked|could not connect|connection (refused|"
    r"timed out)|server closed|Could not connect to the endpoint|timed out|Max retries",
    re.IGNORECASE,
)
_STORAGE = ("requests", "urllib3", "botocore", "boto3", "google", "azure", "sqlalchemy")


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turns an error of MLflow, or of a client of the artifact storage, into one message."""
    try:
        yield
    except Exception as error:
        root = type(error).__module__.partition(".")[0]
        if not isinstance(error, MlflowException) and root not in _STORAGE:
            raise
        raise explain(error) from error


@contextlib.contextmanager
def explaining_files() -> Iterator[None]:
    """Explains also errors of files and missing packages, for calls about artifacts alone."""
    try:
        with explaining():
            yield
    except (OSError, ImportError) as error:
        raise explain(error) from error


def explain(error: Exception) -> UserError:
    """Turns an error into a message with advice; an `OutageError` if nothing answered."""
    uri = re.sub("(?<=//)[^/]*@", "", os.environ.get("MLFLOW_TRACKING_URI", ""))  # no passwords
    text = _text(error)
    causes = ((cause or _reason(text), advice) for words, cause, advice in _CAUSES if words in text)
    reason, advice = next(causes, (_reason(text), _advice(error)))
    kind = OutageError if is_outage(error) else UserError
    return kind(f"MLflow at {uri} cannot be used: {reason}; {advice}")


def is_outage(error: Exception) -> bool:
    """Returns whether nothing answered; a refusal is an answer."""
    text = _text(error)
    if any(words in text for words, _, _ in _CAUSES if words != "database is locked"):
        return False
    if isinstance(error, RestException):
        return bool(error.error_code == "TEMPORARILY_UNAVAILABLE")
    return status(error) >= 500 or (not status(error) and bool(_SILENCE.search(text)))


def status(error: Exception) -> int:
    """Returns the HTTP status of an error; 0 if there was no answer, or MLflow does not name it."""
    response = getattr(error, "response", None)
    if response is not None:
        found = getattr(response, "status_code", 0)  # of requests; botocore's is a mapping
        return int(found or response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    named = _STATUS.search(_text(error))
    return int(named[1]) if named else 0


def _advice(error: Exception) -> str:
    by_kubernetes = os.environ.get("MLFLOW_TRACKING_AUTH", "").startswith("kubernetes")
    advice = {**_ADVICE, **(_KUBERNETES_ADVICE if by_kubernetes else {})}
    if is_outage(error):
        return advice["OUTAGE"]
    if isinstance(error, OSError) and error.filename:
        return (
            "clients must be able to write to this folder; a server that is started with "
            "--artifacts-destination writes artifacts itself"
        )
    code = _STATUSES.get(status(error)) or str(getattr(error, "error_code", ""))
    return advice.get(code, _OTHER)


def _text(error: Exception) -> str:
    if isinstance(error, ImportError) and error.name:
        return f"No module named '{error.name}'"
    return str(error.message if isinstance(error, MlflowException) else error)


def _reason(text: str) -> str:
    for known in ("Connection refused", "Name or service not known", "timed out"):
        if known in text:
            return known.lower()
    repeated = re.search(r"too many (\d{3}) error responses", text)
    if repeated:
        return f"HTTP {repeated[1]}"
    text = re.sub(r"API request to .* error code (\d+) != 200. Response body:", r"HTTP \1", text)
    text = " ".join(text.split())
    return text if len(text) < 300 else text[:300] + "..."
