"""MLflow's list of runs with the columns that people compare.

On its own the list shows neither metrics nor tags. A view that someone shares from the page is
a tag of the experiment with the page's state in it; this writes such a tag, in the form of
MLflow 3.17.
"""

import json
from collections.abc import Collection

from mlflow import MlflowClient

VIEW = "brainseg"  # in the list's address: ...&viewStateShareKey=brainseg

_TAG = f"mlflow.sharedViewState.{VIEW}"
_TAGS_SHOWN = ("label", "decision", "model_version")


def share_view(client: MlflowClient, experiment: str, metrics: Collection[str]) -> None:
    """Makes the view of an experiment's runs, newest first.

    Args:
        client: Of the tracking server.
        experiment: Its id.
        metrics: Names of the metrics that get a column.
    """
    columns = [
        "attributes.`Dataset`",
        *(f"metrics.`{name}`" for name in metrics),
        *(f"tags.`{name}`" for name in _TAGS_SHOWN),
    ]
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runListHidden": False,
        "isAccordionReordered": False,
    }
    client.set_experiment_tag(experiment, _TAG, json.dumps(state))
