"""One MLflow run for one identity, whatever the number of processes that ask for it at once.

MLflow has no unique keys: several processes that find no run create several. Its parameters
never change: it keeps the first value and refuses another. So a run is a candidate by its tag,
and settled or superseded by its parameter. A process that lists only candidates supersedes all
but the first of them, and then settles the first.

Two runs can never be settled. Suppose that A was settled after a list without B, and B after a
list without A (a candidate on the list would have been superseded first). Then B was created
after A's list and so after A, and A was created after B's list and so after B.

This uses no clock and no waiting. It needs a tracking server whose lists show every run created
before: one database, not a replica that lags behind. A list need not be a snapshot: MLflow on
SQLite reads first the runs and then their parameters.
"""

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from components.shared.errors import UserError

# name of the tag and of the parameter; MLflow compares parameters in alphabetical order, and this
# one comes after those that mean something
IDENTITY = "unique_id"

_SUPERSEDED = "superseded"


def find_or_create(
    client: MlflowClient, experiment: str, identity: str, *, name: str, tags: Mapping[str, str]
) -> str:
    """Returns the id of the only run of an identity; creates it if there is none.

    Args:
        client: Client of the tracking server.
        experiment: Id of the run's experiment.
        identity: Hexadecimal digits.
        name: Name of a new run.
        tags: Tags of a new run.

    Raises:
        UserError: If the server does not list the new run.
    """
    created = False
    while True:
        listed = _list(client, experiment, identity)
        candidates = [run for run in listed if _value(run) != _SUPERSEDED]
        settled = [run for run in candidates if _value(run) == identity]
        if settled:
            _delete(client, [run for run in candidates if run not in settled])
            return str(settled[0].info.run_id)
        if candidates:
            first, *others = candidates
            if all(claim(client, run.info.run_id, _SUPERSEDED) for run in others):
                claim(client, first.info.run_id, identity)
        elif listed:
            created = False  # all were superseded when their parameters were read: list again
        elif created:
            raise UserError(
                f"MLflow at {client.tracking_uri} does not list a run that it has just created; "
                "steps cannot share runs on a server that reads from a lagging replica"
            )
        else:
            client.create_run(experiment, tags={**tags, IDENTITY: identity}, run_name=name)
            created = True


def claim(client: MlflowClient, run_id: str, identity: str) -> bool:
    """Assigns a run to an identity; false if another one has it for good, or it is deleted."""
    try:
        client.log_param(run_id, IDENTITY, identity)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        return False
    return True


def _list(client: MlflowClient, experiment: str, identity: str) -> Sequence[Run]:
    """Lists all runs of an identity, and deletes superseded ones."""
    found = client.search_runs(
        [experiment],
        filter_string=f"tags.{IDENTITY} = '{identity}'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    _delete(client, [run for run in found if _value(run) == _SUPERSEDED])
    return found


def _delete(client: MlflowClient, runs: Sequence[Run]) -> None:
    for run in runs:
        client.delete_run(run.info.run_id)


def _value(run: Run) -> str | None:
    value: str | None = run.data.params.get(IDENTITY)
    return value
