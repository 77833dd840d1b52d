"""MLflow: one run per pipeline run, and what every step logs to it.

The server is given by `MLFLOW_TRACKING_URI` and the other standard `MLFLOW_*` variables.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import SQLAlchemyError

from components.shared.environment import environment
from components.shared.errors import UserError
from components.shared.manifest import Manifest, manifest_key

# MLflow tells every step that it takes
logging.getLogger("mlflow").setLevel(logging.WARNING)

EXPERIMENT = "brainseg"
CHAMPION = "champion"  # alias of the registered version that is in use
PIPELINE_RUN_TAG = "kfp_run_id"

_JOINED_TAG = "brainseg.joined"  # on a run that another tool made and will end
_PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
# MLflow's own limits let a call to a server that has gone hang for twenty minutes. These
# outlast the restart of a server (half a minute) and no more.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # fills logs with carriage returns
    "MLFLOW_DISABLE_TELEMETRY": "true",  # clusters without internet, and nobody was asked
}
_PARAM_LENGTH = 5900  # the limit is 6000
_ADVICE = {
    "PERMISSION_DENIED": (
        "its --allowed-hosts must name this host and port, and the user needs the right to it"
    ),
    "ENDPOINT_NOT_FOUND": "the address must be an MLflow server's",
    "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN",
}
_BATCH = 100  # parameters a request, by MLflow's limit; for metrics it is 1000


def connect() -> MlflowClient:
    """Returns a client of `MLFLOW_TRACKING_URI` after one call to it.

    Raises:
        UserError: If the variable is not set, or the server does not answer within about
            15 s or refuses.
    """
    uri = _tracking_uri()
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        client = MlflowClient(uri)
        with environment(_PROBE):
            client.search_experiments(max_results=1)
    except MlflowException as error:
        raise _explain(error) from error
    return client


def open_run(pipeline_run: str) -> str:
    """Returns the id of the MLflow run of this pipeline run.

    It is the run named by `MLFLOW_RUN_ID` where the environment gives one, else the one
    that an earlier step or attempt made for `pipeline_run`, else a new one.

    Args:
        pipeline_run: Identity of the pipeline run; empty always makes a new run.

    Raises:
        UserError: If MLflow cannot be used or has no run `MLFLOW_RUN_ID`.
    """
    client = connect()
    tags = _environment_tags(pipeline_run)
    joined = os.environ.get("MLFLOW_RUN_ID")
    if joined:
        _require_run(client, joined)
        log_tags(client, joined, {**tags, _JOINED_TAG: "true"})
        return joined
    experiment = _experiment(client)
    found = _find_run(client, experiment, pipeline_run) if pipeline_run else None
    return found or str(client.create_run(experiment, tags=tags).info.run_id)


@contextlib.contextmanager
def recording(run_id: str) -> Iterator[MlflowClient]:
    """Gives a client for a run and marks the run as failed if the work in it fails.

    A run that failed before is running again. A run joined by `MLFLOW_RUN_ID` keeps its
    status: who made it ends it.

    Raises:
        UserError: If MLflow cannot be used, before or during the work.
    """
    client = connect()
    _set_status(client, run_id, "RUNNING")
    try:
        yield client
    except BaseException as error:
        with contextlib.suppress(MlflowException):  # the first error is the one to see
            _set_status(client, run_id, "FAILED")
        if isinstance(error, MlflowException) and _is_outage(error):
            raise _explain(error) from error
        raise


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, object]) -> None:
    """Logs parameters; nested keys are joined by dots.

    Values equal to those logged before are left alone, so a step can be run again.

    Raises:
        UserError: If a parameter was logged before with another value.
    """
    new = {key: _param(value) for key, value in _flatten(params)}
    known = client.get_run(run_id).data.params
    changed = [key for key, value in new.items() if known.get(key, value) != value]
    if changed:
        shown = ", ".join(f"{key}: {known[key]} then, {new[key]} now" for key in changed[:5])
        raise UserError(
            f"MLflow run {run_id} was made with other settings ({shown}); a retry keeps the "
            "settings: start a new pipeline run for new ones"
        )
    missing = [Param(key, value) for key, value in new.items() if key not in known]
    for start in range(0, len(missing), _BATCH):
        client.log_batch(run_id, params=missing[start : start + _BATCH])


def log_metrics(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int = 0
) -> None:
    """Logs numbers at a step (an epoch; 0 for what has none)."""
    now = int(time.time() * 1000)
    points = [Metric(key, float(value), now, step) for key, value in metrics.items()]
    for start in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])


def log_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Sets tags on a run; a tag set before gets the new value."""
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def log_dataset(
    client: MlflowClient, run_id: str, dataset_id: str, manifest: Manifest, store: str
) -> None:
    """Names the data set version as the run's input, with its size."""
    profile = {
        "volumes": len(manifest.volumes),
        "slices": sum(entry.slices for entry in manifest.volumes),
        "tumour_slices": sum(entry.tumour_slices for entry in manifest.volumes),
    }
    data = Dataset(
        name="brainseg",
        digest=dataset_id,
        source_type="store",
        source=json.dumps({"uri": f"{store}/{manifest_key(dataset_id)}"}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(data)])


def finish_run(client: MlflowClient, run_id: str) -> None:
    """Ends a run; one joined by `MLFLOW_RUN_ID` is left to who made it."""
    _set_status(client, run_id, "FINISHED")


def experiment_id(run_id: str) -> str:
    """The experiment that a run belongs to.

    Raises:
        UserError: If MLflow cannot be used.
    """
    return str(connect().get_run(run_id).info.experiment_id)


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Returns the version of a registered model under the alias `champion`, if there is one."""
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return client.get_model_version(name, str(aliases[CHAMPION])) if CHAMPION in aliases else None


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
            _experiment(MlflowClient(_sqlite(database)), artifacts.absolute().as_uri())
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


def _tracking_uri() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise UserError(
            "MLFLOW_TRACKING_URI is not set; give a server (http://host:5000) or a local file "
            "(sqlite:////folder/mlflow.db)"
        )
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.is_file():
        # MLflow would make the file, and two steps at once would break it
        raise UserError(f"there is no MLflow file {path}; make it with `brainseg run`")
    return uri


def _explain(error: MlflowException) -> UserError:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    advice = _ADVICE.get(
        error.error_code, "start the server, or set MLFLOW_TRACKING_URI to one that runs"
    )
    return UserError(f"MLflow at {uri} cannot be used: {_reason(error)}; {advice}")


def _reason(error: MlflowException) -> str:
    text = str(error.message)
    for known in ("Connection refused", "Name or service not known", "timed out"):
        if known in text:
            return known.lower()
    text = re.sub(r"API request to .* error code (\d+) != 200. Response body:", r"HTTP \1", text)
    return text if len(text) < 300 else text[:300] + "..."


def _is_outage(error: MlflowException) -> bool:
    return not isinstance(error, RestException) and "API request to" in str(error.message)


def _experiment(client: MlflowClient, artifacts: str | None = None) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given and artifacts is None:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        return _create_experiment(client, name, artifacts)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow's experiment {name!r} was deleted; restore it with `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}` or set MLFLOW_EXPERIMENT_NAME"
        )
    return str(found.experiment_id)


def _create_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    try:
        return str(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment(client)  # another process was faster


def _require_run(client: MlflowClient, run_id: str) -> None:
    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_RUN_ID={run_id}: MLflow at {_tracking_uri()} has no such run; unset the "
            "variable or give a run of this server"
        ) from error


def _find_run(client: MlflowClient, experiment: str, pipeline_run: str) -> str | None:
    runs = client.search_runs(
        [experiment],
        filter_string=f"tags.{PIPELINE_RUN_TAG} = '{pipeline_run}'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    return str(runs[0].info.run_id) if runs else None


def _set_status(
    client: MlflowClient, run_id: str, status: Literal["RUNNING", "FAILED", "FINISHED"]
) -> None:
    run = client.get_run(run_id)
    if run.data.tags.get(_JOINED_TAG) == "true" or run.info.status == status:
        return
    if status == "RUNNING":
        client.update_run(run_id, status)
    else:
        client.set_terminated(run_id, status)


def _environment_tags(pipeline_run: str) -> dict[str, str]:
    tags = {
        "mlflow.source.name": "brainseg",
        "mlflow.user": os.environ.get("USER", ""),
        PIPELINE_RUN_TAG: pipeline_run,
        "image_digest": os.environ.get("BRAINSEG_IMAGE_DIGEST", ""),
        **_git_tags(),
    }
    return {key: value for key, value in tags.items() if value}


def _git_tags() -> dict[str, str]:
    given = os.environ.get("BRAINSEG_GIT_COMMIT", "")
    if given:
        return {"mlflow.source.git.commit": given}
    here = Path(__file__)
    # in a virtual environment inside someone's repository, that one's commit is not ours
    if _git("ls-files", "--error-unmatch", here.name) is None:
        return {}
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    return {
        "mlflow.source.git.commit": commit or "",
        "mlflow.source.git.dirty": "true" if changed else "false",
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no repository
        return None
    return done.stdout.strip()


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _param(value: object) -> str:
    text = str(value)
    if len(text) <= _PARAM_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[:_PARAM_LENGTH]}... (cut, sha256 {digest})"
