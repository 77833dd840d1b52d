"""What a training is: the one digest that its run and its checkpoints follow from."""

import functools
import re
from collections.abc import Mapping
from typing import Any

from pydantic import field_validator

from components.shared.config import Record
from components.shared.dataset.manifest import canonical_json, short_digest
from components.shared.errors import UserError
from components.shared.storage.store import Store

CHECKPOINTS = "checkpoints/"

_LABEL = re.compile(r"[\w .:-]*", re.ASCII)  # what MLflow allows in a metric's name, without "/"


class Training(Record):
    """One training of a pipeline run.

    Attributes:
        pipeline_run: Identity of the pipeline run, equal in all its steps and their retries.
        label: Which of the pipeline run's trainings, for people, e.g. `fold-1`.
        dataset_id: What it learns from.
        split_id: Which part of that.
        recipe: How, as JSON.
    """

    pipeline_run: str
    label: str = ""
    dataset_id: str
    split_id: str
    recipe: Mapping[str, Any]

    @field_validator("pipeline_run")
    @classmethod
    def _is_given(cls, pipeline_run: str) -> str:
        if not pipeline_run:
            raise UserError(
                "pipeline_run is empty, and a training is found again by it; give the id of the "
                "pipeline run (in a graph dsl.PIPELINE_JOB_ID_PLACEHOLDER)"
            )
        return pipeline_run

    @field_validator("label")
    @classmethod
    def _is_a_name(cls, label: str) -> str:
        check_label(label)
        return label

    @functools.cached_property
    def digest(self) -> str:
        """Equal in every attempt, another for every other training."""
        return short_digest(canonical_json(self.model_dump(mode="json")))


def check_label(label: str) -> None:
    """Makes sure that a training can be called so.

    Raises:
        UserError: If a metric's name could not hold it.
    """
    if not _LABEL.fullmatch(label):
        raise UserError(
            f"label {label!r}: it becomes part of metrics' names; give letters, digits, "
            "spaces and any of _ . : -"
        )


def pipeline_run_digest(pipeline_run: str) -> str:
    """The same for a whole pipeline run; any text may name it."""
    return short_digest(canonical_json({"pipeline_run": pipeline_run}))


def checkpoint_folder(training_digest: str) -> str:
    """The store's folder for the state of a training until its pipeline run is over.

    Raises:
        ValueError: If the digest is empty: that folder has the states of all trainings.
    """
    if not training_digest:
        raise ValueError("a training without a digest has no checkpoints")
    return f"{CHECKPOINTS}{training_digest}"


def remove_checkpoints(store: Store, training_digest: str) -> None:
    """Deletes a training's state from the store."""
    for key in list(store.keys(f"{checkpoint_folder(training_digest)}/")):
        store.delete(key)
