"""Shared view of MLflow's list of runs, with the columns that users compare.

By default the list shows neither metrics nor tags. A view that a user shares from the page is a
tag of the experiment with the state of the page. This module writes such a tag, in the form of
MLflow 3.17.
"""

import json
from collections.abc import Collection

from mlflow import MlflowClient

VIEW = "brainseg"  # in the list's address: ...&viewStateShareKey=brainseg

DECISION_TAG = "decision"  # outcome for a training's model
MODEL_VERSION_TAG = "model_version"

_TAG = f"mlflow.sharedViewState.{VIEW}"
_TAGS_SHOWN = ("label", DECISION_TAG, MODEL_VERSION_TAG)
_MOST = 60  # columns; MLflow's limits: 20,000 characters a tag, 250 a metric's name


def share_view(client: MlflowClient, experiment: str, metrics: Collection[str]) -> None:
    """Creates the view of an experiment's runs, newest first, or adds columns to it.

    If there are too many, the oldest columns that are not asked for again are removed.

    Args:
        client: Client of the tracking server.
        experiment: Id of the experiment.
        metrics: Names of the metrics with a column.
    """
    tag = client.get_experiment(experiment).tags.get(_TAG)
    before = json.loads(tag)["selectedColumns"] if tag else []
    shown = [f"metrics.`{name}`" for name in metrics] + [f"tags.`{name}`" for name in _TAGS_SHOWN]
    asked = ["attributes.`Dataset`", *shown]
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*(name for name in before if name not in asked), *asked][-_MOST:],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runListHidden": False,
        "isAccordionReordered": False,
    }
    client.set_experiment_tag(experiment, _TAG, json.dumps(state))
