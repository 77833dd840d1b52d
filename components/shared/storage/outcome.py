"""Outcome of a pipeline run: written to the store by its steps, read by the step that notifies.

On a cluster an exit handler receives that the run has failed, but neither the step nor the reason
(KFP 2.17, backend/src/v2/driver/resolve.go: the error is empty).
"""

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, Field, ValidationError

from components.shared.config import Record
from components.shared.errors import UserError
from components.shared.process import StepProcess, step_process
from components.shared.storage.store import Store, open_store

logger = logging.getLogger(__name__)

AnyRecord = TypeVar("AnyRecord", bound=Record)

RUNS = "runs/"


class Outcome(Record):
    """Outcome of a pipeline run that did not fail.

    Attributes:
        kind: `unchanged` ended early, as there was nothing new to learn or to predict; `promoted`
            has a new champion, `rejected` a version that is not; `predicted` has new predictions.
        reason: Reason in a sentence with numbers.
        model: The version in question: `models:/name/version`.
        mlflow_run_id: MLflow run of the pipeline run, in the experiment `experiment_id`.
        headline: Score of the model as text, with its interval.
    """

    kind: Literal["unchanged", "promoted", "rejected", "predicted"]
    reason: str
    dataset_id: str = ""
    model: str = ""
    experiment_id: str = ""
    mlflow_run_id: str = ""
    headline: str = ""
    metrics: Mapping[str, float] = Field(default_factory=dict)


class Failure(Record):
    """Failure of a step, written before its process ends; of several the last one counts."""

    step: str
    reason: str
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


def leave_outcome(store: Store, pipeline_run: str, outcome: Outcome) -> None:
    """Writes the outcome of a pipeline run; a retry of the step replaces it.

    Raises:
        UserError: If the store refuses, or the pipeline run has no name.
    """
    store.write(f"{run_folder(pipeline_run)}outcome.json", _json(outcome))


@contextlib.contextmanager
def running_step(
    name: str, store: str, label: str = "", pipeline_run: str = ""
) -> Iterator[StepProcess]:
    """Runs a step's work as `step_process` does, and leaves its failure in the store.

    Args:
        name: Name of the step.
        store: URI of the store.
        label: Task of this step in the run, e.g. fold-1.
        pipeline_run: Name of the pipeline run, used if the environment has none.
    """
    with step_process(name, label) as process:
        run = process.pipeline_run or pipeline_run
        with leaving_failure(store, run, name, label):
            yield replace(process, pipeline_run=run)


@contextlib.contextmanager
def leaving_failure(store: str, pipeline_run: str, step: str, label: str = "") -> Iterator[None]:
    """Writes the reason when a step fails; a successful attempt removes it.

    An error of the store is only logged: the step's own reason must remain visible. A killed
    process writes nothing.

    Args:
        store: URI of the store.
        pipeline_run: Name of the pipeline run; if it is empty, nothing is written.
        step: Name of the step.
        label: Task of this step in the run, e.g. fold-1. Tasks run in parallel, and none may
            remove the failure of another.
    """
    name = f"{step} {label}" if label else step
    try:
        yield
    except Exception as error:
        reason = str(error)
        if not isinstance(error, UserError):
            reason = f"it crashed: {''.join(traceback.format_exception_only(error)).strip()}"
        _keep(store, pipeline_run, name, Failure(step=name, reason=reason))
        raise
    _keep(store, pipeline_run, name, None)


def read_outcome(store: Store, pipeline_run: str) -> Outcome | Failure | None:
    """Reads the outcome of a pipeline run; `None` if no step has written one.

    A run with an outcome has not failed, whatever an earlier attempt of a step left.

    Raises:
        UserError: If the store refuses, or holds something else there.
    """
    folder = run_folder(pipeline_run)
    try:
        return _parse(Outcome, store, f"{folder}outcome.json")
    except KeyError:
        failures = [_parse(Failure, store, key) for key in store.keys(f"{folder}failures/")]
        return max(failures, key=lambda failure: failure.time, default=None)


def run_folder(pipeline_run: str) -> str:
    """Folder of a pipeline run's outcome in the store, ending in `/`.

    Args:
        pipeline_run: Any text; unsafe characters are percent-encoded.

    Raises:
        UserError: If it is empty.
    """
    if not pipeline_run:
        raise UserError(
            "pipeline_run is empty, but the outcome of a run is stored under it; give the id of "
            "the pipeline run (in a graph dsl.PIPELINE_JOB_ID_PLACEHOLDER)"
        )
    return f"{RUNS}{quote(pipeline_run, safe='').replace('.', '%2E')}/"


def _keep(store: str, pipeline_run: str, step: str, failure: Failure | None) -> None:
    if not pipeline_run:
        return
    key = f"{run_folder(pipeline_run)}failures/{quote(step.replace(' ', '-'), safe='')}.json"
    try:
        if failure:
            open_store(store).write(key, _json(failure))
        else:
            open_store(store).delete(key)
    except UserError as error:
        logger.warning("whether the step fails is not kept: %s", error)


def _json(record: Record) -> bytes:
    return record.model_dump_json(indent=2).encode()


def _parse(kind: type[AnyRecord], store: Store, key: str) -> AnyRecord:
    try:
        return kind.model_validate_json(store.read(key))
    except ValidationError as error:
        raise UserError(f"{store.uri}/{key} was not written by this version: {error}") from error
