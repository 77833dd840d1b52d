"""MLflow: one run per pipeline run, and what every step logs to it."""

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from components.shared.dataset.manifest import Manifest, manifest_key
from components.shared.errors import UserError
from components.shared.tracking.server import (
    connect,
    explain,
    is_outage,
    open_experiment,
    tracking_uri,
)

PIPELINE_RUN_TAG = "kfp_run_id"

_JOINED_TAG = "brainseg.joined"  # on a run that another tool made and will end

_PARAM_LENGTH = 5900  # the limit is 6000

_BATCH = 100  # parameters a request, by MLflow's limit; for metrics it is 1000


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
    experiment = open_experiment(client)
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
        if isinstance(error, MlflowException) and is_outage(error):
            raise explain(error) from error
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


def _require_run(client: MlflowClient, run_id: str) -> None:
    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_RUN_ID={run_id}: MLflow at {tracking_uri()} has no such run; unset the "
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
