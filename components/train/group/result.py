"""The result of a pod group, which the step fetches from the store."""

from pathlib import Path

from pydantic import ValidationError

from components.shared.config import Record
from components.shared.errors import UserError
from components.shared.storage.store import Store, file_digest
from components.shared.tracking.identity import Training, checkpoint_folder

PROFILE = "profile.html"  # the step stores it for its group in the same folder
_INDEX = "result.json"


class Result(Record):
    """The result of a group; its files are stored under their digests.

    Attributes:
        mlflow_run_id: Id of the MLflow run.
        model: Path in the model folder -> SHA-256 of the file.
        history: SHA-256 of the training history.
    """

    mlflow_run_id: str
    model: dict[str, str]
    history: str


def group_folder(training: Training) -> str:
    """Return the store's folder of a group; it is deleted with the checkpoints."""
    return f"{checkpoint_folder(training.digest)}/group"


def store_result(
    store: Store, folder: str, *, mlflow_run_id: str, model: Path, history: Path
) -> None:
    """Store a result completely or not at all."""
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    stored = {path.relative_to(model).as_posix(): _upload(store, folder, path) for path in files}
    result = Result(
        mlflow_run_id=mlflow_run_id, model=stored, history=_upload(store, folder, history)
    )
    store.write(f"{folder}/{_INDEX}", result.model_dump_json().encode())


def find_result(store: Store, folder: str) -> Result | None:
    """Return the result, if the group has stored one; raise `UserError` if it is damaged."""
    try:
        return Result.model_validate_json(store.read(f"{folder}/{_INDEX}"))
    except KeyError:
        return None
    except ValidationError as error:
        raise _damaged(store, f"{folder}/{_INDEX}") from error


def fetch_result(store: Store, folder: str, result: Result, *, model: Path, history: Path) -> None:
    """Write a result to the step's outputs; raise `UserError` if a file is missing or damaged."""
    for name, digest in result.model.items():
        _download(store, f"{folder}/{digest}", digest, model / name)
    _download(store, f"{folder}/{result.history}", result.history, history)


def _upload(store: Store, folder: str, path: Path) -> str:
    digest = file_digest(path)
    store.upload(path, f"{folder}/{digest}")
    return digest


def _download(store: Store, key: str, digest: str, path: Path) -> None:
    try:
        store.download(key, path)
    except KeyError as error:
        raise _damaged(store, key) from error
    if file_digest(path) != digest:
        raise _damaged(store, key)


def _damaged(store: Store, key: str) -> UserError:
    return UserError(
        f"store {store.uri}: {key} of the pod group is missing or damaged; delete "
        f"{key.rpartition('/')[0]}/{_INDEX} and run the step again: it resumes from the last state"
    )
