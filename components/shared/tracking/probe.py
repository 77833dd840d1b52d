"""Probe of MLflow: tries what the steps do later, in a run that is deleted again."""

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from components.shared.errors import UserError
from components.shared.tracking.refusals import explaining, explaining_files, status
from components.shared.tracking.server import connect, open_experiment

MODEL_BYTES = 128 * 2**20  # a file of the largest presets' models

_TAG = "brainseg.probe"
_FILE, _LARGE = "probe.txt", "probe-large.bin"


@explaining()
def probe(large_bytes: int = 0) -> None:
    """Tries MLflow: a run, a file that is stored, listed and read, models and the registry.

    Args:
        large_bytes: Size of another file that is stored, e.g. `MODEL_BYTES`; 0 for none.

    Raises:
        UserError: If MLflow, the storage of its artifacts or a proxy in front of them refuses.
    """
    client = connect()
    experiment = open_experiment(client)
    # a user who may not delete runs leaves one, for all later probes
    known = client.search_runs([experiment], f"tags.`{_TAG}` = 'yes'", max_results=1)
    tags = {_TAG: "yes"}
    run = known[0] if known else client.create_run(experiment, tags=tags, run_name="probe")
    try:
        _try_files(client, run, large_bytes)
        _require_models(client, experiment)
        client.search_registered_models(max_results=1)
    finally:
        _remove(client, run)


def _try_files(client: MlflowClient, run: Run, large_bytes: int) -> None:
    run_id = run.info.run_id
    client.log_text(run_id, run_id, _FILE)
    listed = [found.path for found in client.list_artifacts(run_id)]
    with TemporaryDirectory() as folder:
        read = _read(run, folder)
        if _FILE not in listed or read != run_id:
            raise UserError(
                f"MLflow at {client.tracking_uri} cannot be used: an artifact that was stored in "
                f"{run.info.artifact_uri} is not found there again; check its artifact storage"
            )
        _require_common_folder(client, run)
        if large_bytes:
            large = Path(folder, _LARGE)
            with open(large, "wb") as stream:
                stream.truncate(large_bytes)
            client.log_artifact(run_id, str(large))


@explaining_files()
def _read(run: Run, folder: str) -> str:
    # MlflowClient.download_artifacts hides why it fails (its store/artifact/runs_artifact_repo.py)
    files = get_artifact_repository(run.info.artifact_uri)
    found: str = files.download_artifacts(_FILE, folder)  # type: ignore[no-untyped-call]  # MLflow's
    return Path(found).read_text()


def _require_common_folder(client: MlflowClient, run: Run) -> None:
    """Asks the server whether it sees the file, if artifacts are in a folder.

    Clients write to such a folder on their own disk, where the server finds nothing.
    """
    uri = client.tracking_uri
    is_folder = urlsplit(run.info.artifact_uri).scheme in ("", "file")
    if not is_folder or not uri.startswith("http"):
        return
    endpoint, query = "/api/2.0/mlflow/artifacts/list", {"run_id": run.info.run_id}
    server = get_default_host_creds(uri)  # type: ignore[no-untyped-call]  # MLflow's, as the next
    answer = http_request(server, endpoint, "GET", params=query)  # type: ignore[no-untyped-call]
    if _FILE not in [found["path"] for found in answer.json().get("files", [])]:
        raise UserError(
            f"MLflow at {uri} cannot be used: it lets its clients write artifacts to "
            f"{run.info.artifact_uri}, and does not see what this machine writes there; start it "
            "with --artifacts-destination, or share the folder with all its clients"
        )


def _require_models(client: MlflowClient, experiment: str) -> None:
    try:
        client.search_logged_models([experiment], max_results=1)
    except MlflowException as error:
        if status(error) != 404 and error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        raise UserError(
            f"MLflow at {client.tracking_uri} cannot be used: it has no API for logged models, "
            "which came with version 3; upgrade the server (docs/how-to/mlflow.md lists vendors)"
        ) from error


def _remove(client: MlflowClient, run: Run) -> None:
    """Deletes the files and the run as far as the user may."""
    with contextlib.suppress(UserError), explaining_files():
        files = get_artifact_repository(run.info.artifact_uri)
        for name in (_FILE, _LARGE):
            files.delete_artifacts(name)  # type: ignore[no-untyped-call]  # MLflow's
    with contextlib.suppress(MlflowException):
        client.set_terminated(run.info.run_id)
        client.delete_run(run.info.run_id)
