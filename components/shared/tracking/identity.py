"""Identity of a training run: the digest that names its MLflow run and its checkpoints."""

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

_LABEL = re.compile(r"[\w .:-]*", re.ASCII)  # allowed by MLflow in a metric's name, without "/"


class Training(Record):
    """One training of a pipeline run.

    Attributes:
        pipeline_run: Identity of the pipeline run, equal in all its steps and their retries.
        label: Name among the pipeline run's training runs, e.g. `fold-1`.
        dataset_id: Version of the data set.
        split_id: Version of the split.
        recipe: Recipe as JSON.
        weights: Digests of the files that it starts from, by setting.
    """

    pipeline_run: str
    label: str = ""
    dataset_id: str
    split_id: str
    recipe: Mapping[str, Any]
    weights: Mapping[str, str] = {}

    @field_validator("pipeline_run")
    @classmethod
    def _is_given(cls, pipeline_run: str) -> str:
        if not pipeline_run:
            raise UserError(
                "pipeline_run is empty, but a retry finds its training run by it; give the id of "
                "the pipeline run (in a graph dsl.PIPELINE_JOB_ID_PLACEHOLDER)"
            )
        return pipeline_run

    @field_validator("label")
    @classmethod
    def _is_a_name(cls, label: str) -> str:
        check_label(label)
        return label

    @functools.cached_property
    def digest(self) -> str:
        """Digest that is equal in every attempt, and different for every other training run."""
        unused = set() if self.weights else {"weights"}
        return short_digest(canonical_json(self.model_dump(mode="json", exclude=unused)))


def check_label(label: str) -> None:
    """Checks the label of a training run.

    Raises:
        UserError: If it cannot be part of a metric's name.
    """
    if not _LABEL.fullmatch(label):
        raise UserError(
            f"label {label!r}: it becomes part of metrics' names; give letters, digits, "
            "spaces and any of _ . : -"
        )


def pipeline_run_digest(pipeline_run: str) -> str:
    """Returns the digest of a whole pipeline run; its id is any text."""
    return short_digest(canonical_json({"pipeline_run": pipeline_run}))


def checkpoint_folder(training_digest: str) -> str:
    """Returns the store's folder for the states of a training run until its pipeline run ends.

    Raises:
        ValueError: If the digest is empty: that folder has the states of all training runs.
    """
    if not training_digest:
        raise ValueError("a training run without a digest has no checkpoints")
    return f"{CHECKPOINTS}{training_digest}"


def remove_checkpoints(store: Store, training_digest: str) -> None:
    """Deletes the states of a training run from the store."""
    for key in list(store.keys(f"{checkpoint_folder(training_digest)}/")):
        store.delete(key)
