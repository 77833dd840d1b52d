"""Local MLflow: a SQLite file and a folder, created before any step uses them."""

import fcntl

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from components.shared.errors import UserError
from components.shared.tracking.address import sqlite_file
from components.shared.tracking.server import open_experiment, prepare_database

_ARTIFACTS = "mlartifacts"  # the folder next to the file


def ensure_local(uri: str) -> None:
    """Creates the local MLflow of a tracking URI, with its experiment; ignores a server's URI.

    Args:
        uri: Value of `MLFLOW_TRACKING_URI`; files of runs go to `mlartifacts/` next to the file.

    Raises:
        UserError: If the file cannot be created or is of another MLflow version.
    """
    database = sqlite_file(uri)
    if database is None:
        return
    prepare_database(uri)
    artifacts = database.parent / _ARTIFACTS
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        with open(database.with_name(f".{database.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two processes at once would corrupt the file
            if not database.exists():
                # under another name until it is complete: MLflow cannot use a partial file
                part = database.with_name(f".{database.name}.part")
                part.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{part}")
                part.replace(database)
            open_experiment(MlflowClient(f"sqlite:///{database}"), artifacts.as_uri())
    except OSError as error:
        raise UserError(
            f"the local MLflow cannot be created in {database.parent}: {error.strerror}; choose a "
            "writable folder"
        ) from error
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(
            f"MLflow's file {database} cannot be used: {error}; move it or give another file"
        ) from error
