"""Logging to a training run's MLflow run, and its status during the work."""

import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from components.shared.dataset.manifest import Manifest, manifest_key
from components.shared.errors import UserError
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of, set_status
from components.shared.tracking.task import resume_task_run, tag_task_run
from components.shared.tracking.view import share_view

_PARAM_LENGTH = 5900  # the limit is 6000

_BATCH = 100  # parameters per request, MLflow's limit; for metrics it is 1000


@contextlib.contextmanager
def recording(run_id: str) -> Iterator[MlflowClient]:
    """Returns a client for a training's run, and marks the run as failed if the work fails.

    A run that failed before is set running again, and so is its pipeline run's. A run joined by
    `MLFLOW_RUN_ID` keeps its status: its creator ends it. The run that KFP's plugin created for
    this task is set running only.

    Raises:
        UserError: If MLflow cannot be used, before or during the work.
    """
    client = connect()
    try:
        with explaining():
            resume_task_run(client, run_id)
            set_status(client, run_id, "RUNNING")
            yield client
    except BaseException:
        with contextlib.suppress(MlflowException):  # the first error is the one to report
            set_status(client, run_id, "FAILED")
        raise


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, object]) -> None:
    """Logs parameters; nested keys are joined by dots.

    Values equal to those logged before are skipped, so a step can run again.

    Raises:
        UserError: If a parameter was logged before with another value.
    """
    new = {key: _param(value) for key, value in _flatten(params)}
    known = client.get_run(run_id).data.params
    changed = [key for key, value in new.items() if known.get(key, value) != value]
    if changed:
        shown = ", ".join(f"{key}: {known[key]} then, {new[key]} now" for key in changed[:5])
        raise UserError(
            f"MLflow run {run_id} was created with other settings ({shown}); a retry keeps the "
            "settings: start a new pipeline run for new ones"
        )
    missing = [Param(key, value) for key, value in new.items() if key not in known]
    for start in range(0, len(missing), _BATCH):
        client.log_batch(run_id, params=missing[start : start + _BATCH])


def log_metrics(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int = 0
) -> None:
    """Logs metrics at a step (an epoch; 0 for other metrics)."""
    now = int(time.time() * 1000)
    # MLflow refuses this sign, which names of targets may have
    named = {key.replace("+", "-"): float(value) for key, value in metrics.items()}
    points = [Metric(key, value, now, step) for key, value in named.items()]
    for start in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])


def log_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Sets tags on a run; a new value replaces the old one."""
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def log_dataset(client: MlflowClient, run_id: str, manifest: Manifest, store: str) -> None:
    """Logs the data set version as the run's input, with its size."""
    profile = {
        "volumes": len(manifest.volumes),
        "slices": sum(entry.slices for entry in manifest.volumes),
        "tumour_slices": sum(entry.tumour_slices for entry in manifest.volumes),
    }
    data = Dataset(
        name="brainseg",
        digest=manifest.dataset_id,
        source_type="store",
        source=json.dumps({"uri": f"{store}/{manifest_key(manifest.dataset_id)}"}),
        profile=json.dumps(profile),
    )
    inputs = [DatasetInput(data)]
    try:
        client.log_inputs(run_id, datasets=inputs)
    except MlflowException:
        # two processes at once insert the same rows; now those of the other exist and are skipped
        client.log_inputs(run_id, datasets=inputs)


def log_text_once(client: MlflowClient, run_id: str, text: str, path: str) -> None:
    """Logs a text file unless the run has one with this name."""
    folder = path.rpartition("/")[0]
    if path not in [found.path for found in client.list_artifacts(run_id, folder or None)]:
        client.log_text(run_id, text, path)


def log_headline(client: MlflowClient, run_id: str, metrics: Collection[str]) -> None:
    """Copies some of a training's metrics to its pipeline run's run, with the training's label.

    Pipeline runs can then be sorted by them, with `fold-1/patient_dice_mean` next to
    `fold-2/patient_dice_mean`. Without a label they keep their names. Each becomes a column of the
    view `brainseg`.
    """
    run = client.get_run(run_id)
    label = run.data.tags.get("label")
    prefix = f"{label}/" if label else ""
    _copy_to_parent(client, run_id, metrics, prefix=prefix)
    shown = dict.fromkeys([*(f"{prefix}{name}" for name in metrics), *metrics])
    share_view(client, run.info.experiment_id, list(shown))


def log_outcome(
    client: MlflowClient, run_id: str, metrics: Collection[str], tags: Mapping[str, str]
) -> None:
    """Copies a training's metrics to its pipeline run's run, and the outcome for its model.

    The run that KFP's plugin created for this task gets the tags too.
    """
    _copy_to_parent(client, run_id, metrics)
    log_tags(client, pipeline_run_of(client, run_id), tags)
    tag_task_run(client, run_id, tags)


def _copy_to_parent(
    client: MlflowClient, run_id: str, metrics: Collection[str], prefix: str = ""
) -> None:
    own, above = client.get_run(run_id).data.metrics, pipeline_run_of(client, run_id)
    shown = client.get_run(above).data.metrics
    values = {f"{prefix}{name}": own[name] for name in metrics if name in own}
    new = {name: value for name, value in values.items() if shown.get(name) != value}
    log_metrics(client, above, new)


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
