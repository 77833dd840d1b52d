"""A local MLflow: a SQLite file and a folder, made before any step uses them."""

import fcntl
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from components.shared.errors import UserError
from components.shared.tracking.address import sqlite_file
from components.shared.tracking.server import open_experiment

_ARTIFACTS = "mlartifacts"  # the folder beside the file


def ensure_local(uri: str) -> None:
    """Makes the local MLflow that a tracking URI names, if it names one.

    A server's URI is left alone: a server makes its database itself.

    Args:
        uri: As in `MLFLOW_TRACKING_URI`; files of runs go to `mlartifacts/` beside the file.

    Raises:
        UserError: If the file cannot be made or is of another MLflow version.
    """
    database = sqlite_file(uri)
    if database is not None:
        initialise_local(database, database.parent / _ARTIFACTS)


def initialise_local(database: Path, artifacts: Path) -> str:
    """Makes a local MLflow: a SQLite file and the experiment, before any step uses them.

    Args:
        database: The SQLite file; made where it is not there.
        artifacts: Folder for the files of runs; used when the experiment is made.

    Returns:
        The tracking URI.

    Raises:
        UserError: If the file cannot be made or is of another MLflow version.
    """
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        artifacts.mkdir(parents=True, exist_ok=True)
        with open(database.with_name(f".{database.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would break the file
            if not database.exists():
                _make_database(database)
            open_experiment(MlflowClient(_sqlite(database)), artifacts.absolute().as_uri())
    except OSError as error:
        raise UserError(
            f"the local MLflow cannot be made in {database.parent}: {error.strerror}; choose a "
            "folder that can be written"
        ) from error
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(
            f"MLflow's file {database} cannot be used: {error}; move it away or give another"
        ) from error
    return _sqlite(database)


def _make_database(database: Path) -> None:
    # under another name until it is whole: MLflow cannot go on with half a file
    part = database.with_name(f".{database.name}.part")
    part.unlink(missing_ok=True)
    MlflowClient(_sqlite(part))
    part.replace(database)


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"
