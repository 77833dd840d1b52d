"""One message for each kind of error that MLflow, its clients and its storage raise."""

import botocore.exceptions
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from components.shared.errors import OutageError, UserError
from components.shared.tracking.refusals import explain, explaining, explaining_files


@pytest.fixture(autouse=True)
def server(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow.test:5000")
    monkeypatch.delenv("MLFLOW_TRACKING_AUTH", raising=False)


def answer(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Client Error", response=response)


@pytest.mark.parametrize(
    ("error", "advice", "kind"),
    [
        (answer(413), "client_max_body_size", UserError),
        (answer(401), "MLFLOW_TRACKING_USERNAME", UserError),
        (answer(403), "--allowed-hosts", UserError),
        (answer(503), "start the server", OutageError),
        (requests.ConnectionError("Max retries exceeded"), "start the server", OutageError),
        (MlflowException("error code 503 != 200"), "start the server", OutageError),
        (
            RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}),
            "start the server",
            OutageError,
        ),
        (
            RestException({"error_code": "PERMISSION_DENIED", "message": "no"}),
            "the user needs the right",
            UserError,
        ),
        (MlflowException("(sqlite3.OperationalError) database is locked"), "end it", OutageError),
        (MlflowException("No module named 'boto3'"), "mlflow-s3", UserError),
        (botocore.exceptions.NoCredentialsError(), "AWS_ACCESS_KEY_ID", UserError),
        (MlflowException("something else"), "server's log", UserError),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, Exception) else None,
)
def test_an_error_becomes_a_message_with_advice(error, advice, kind):
    explained = explain(error)
    assert type(explained) is kind
    assert advice in str(explained)
    assert "\n" not in str(explained)


def test_a_message_holds_no_password():
    assert "http://mlflow.test:5000" in str(explain(answer(403)))
    assert "secret" not in str(explain(answer(403)))


def test_long_answers_are_cut():
    assert len(str(explain(MlflowException("page " * 1000)))) < 600


def test_a_pod_that_kubernetes_refuses_needs_rights_of_its_account(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes")
    assert "ServiceAccount" in str(explain(answer(403)))


def test_errors_of_the_program_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), explaining_files():
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), explaining():
        raise FileNotFoundError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/mlflow/1"), "write to this folder"),
        (OSError(28, "No space left on device"), "free space"),
        (ModuleNotFoundError("No module named 'azure'", name="azure"), "install this package"),
    ],
)
def test_errors_of_artifact_files_are_explained(error, words):
    with pytest.raises(UserError, match=words), explaining_files():
        raise error
