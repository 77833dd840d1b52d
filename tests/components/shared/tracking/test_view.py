import json

from components.shared.tracking.server import connect, open_experiment
from components.shared.tracking.view import VIEW, share_view


def test_the_list_of_runs_has_the_columns_that_people_compare(any_mlflow):
    client = connect()
    experiment = open_experiment(client)
    for metrics in (["dice"], ["dice", "fold 1/loss"]):  # made anew, not added to
        share_view(client, experiment, metrics)
    tags = client.get_experiment(experiment).tags
    assert json.loads(tags[f"mlflow.sharedViewState.{VIEW}"])["selectedColumns"] == [
        "attributes.`Dataset`",
        "metrics.`dice`",
        "metrics.`fold 1/loss`",
        "tags.`label`",
        "tags.`decision`",
        "tags.`model_version`",
    ]
