import json
import uuid

import pytest

from components.shared.tracking.server import connect, open_experiment
from components.shared.tracking.view import VIEW, share_view
from tests.components.conftest import BOTH_MLFLOWS


def columns(client, experiment):
    tags = client.get_experiment(experiment).tags
    return json.loads(tags[f"mlflow.sharedViewState.{VIEW}"])["selectedColumns"]


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", uuid.uuid4().hex)
    return open_experiment(connect())


@BOTH_MLFLOWS
def test_the_list_of_runs_has_the_columns_that_people_compare(any_mlflow, experiment):
    for metrics in (["fold 1/loss"], ["dice"], ["dice"]):  # added, each once
        share_view(connect(), experiment, metrics)
    assert sorted(columns(connect(), experiment)) == [
        "attributes.`Dataset`",
        "metrics.`dice`",
        "metrics.`fold 1/loss`",
        "tags.`decision`",
        "tags.`label`",
        "tags.`model_version`",
    ]


def test_the_oldest_columns_go_before_there_are_too_many(local_mlflow, experiment):
    for number in range(30):
        names = [f"{number}/{letter * 240}" for letter in "abc"]
        share_view(connect(), experiment, names)
    found = columns(connect(), experiment)
    assert len(found) == 60
    assert f"metrics.`29/{'a' * 240}`" in found
    assert f"metrics.`0/{'a' * 240}`" not in found
