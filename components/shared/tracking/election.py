"""One MLflow run for one identity, however many processes ask for it at once.

MLflow has no uniqueness: processes that look for a run, find none and make one make several.
What it has is parameters that never change: the first value stands, another is refused. So a
run is a candidate by its tag, and settled or superseded by its parameter. Who lists only
candidates supersedes all but the first of them, and then settles the first.

Two can never be settled. Say A was, after a list without B, and B after a list without A (a
candidate on the list would have been superseded first). Then B was made after A's list and so
after A; and A was made after B's list and so after B.

No clock and no waiting is in this. It needs a tracking server whose lists show every run that
was made before: one database, not a replica that lags behind. A list need not be of one moment:
MLflow on SQLite reads first which runs there are and then their parameters.
"""

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from components.shared.errors import UserError

# name of the tag and of the parameter; MLflow compares parameters in the order of the alphabet,
# and this one is to come after those that mean something
IDENTITY = "unique_id"

_SUPERSEDED = "superseded"


def find_or_make(
    client: MlflowClient, experiment: str, identity: str, *, name: str, tags: Mapping[str, str]
) -> str:
    """Returns the id of the one run of an identity; makes it where there is none.

    Args:
        client: Of the tracking server.
        experiment: Id of the experiment that it is in.
        identity: Hexadecimal digits.
        name: Of the run, if it is made.
        tags: Of the run, if it is made.

    Raises:
        UserError: If the server does not list the run that was made.
    """
    made = False
    while True:
        listed = _list(client, experiment, identity)
        candidates = [run for run in listed if _value(run) != _SUPERSEDED]
        settled = [run for run in candidates if _value(run) == identity]
        if settled:
            _delete(client, [run for run in candidates if run not in settled])
            return str(settled[0].info.run_id)
        if candidates:
            _settle_first(client, candidates, identity)
        elif listed:
            made = False  # superseded, all of them, when their parameters were read: look again
        elif made:
            raise UserError(
                f"MLflow at {client.tracking_uri} does not list a run that it has just made; "
                "steps cannot share runs on a server that reads from a lagging replica"
            )
        else:
            client.create_run(experiment, tags={**tags, IDENTITY: identity}, run_name=name)
            made = True


def claim(client: MlflowClient, run_id: str, identity: str) -> bool:
    """Takes a run that another tool made for an identity; false if another identity has it.

    The first who asks has it, and again in every later attempt.
    """
    return _stands(client, run_id, identity)


def _list(client: MlflowClient, experiment: str, identity: str) -> Sequence[Run]:
    """All runs of an identity; those that are superseded are deleted."""
    found = client.search_runs(
        [experiment],
        filter_string=f"tags.{IDENTITY} = '{identity}'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    _delete(client, [run for run in found if _value(run) == _SUPERSEDED])
    return found


def _settle_first(client: MlflowClient, candidates: Sequence[Run], identity: str) -> None:
    first, *others = candidates
    if all(_stands(client, run.info.run_id, _SUPERSEDED) for run in others):
        _stands(client, first.info.run_id, identity)


def _stands(client: MlflowClient, run_id: str, value: str) -> bool:
    """Gives a run's parameter a value; false if it has another, or the run is deleted."""
    try:
        client.log_param(run_id, IDENTITY, value)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        return False
    return True


def _delete(client: MlflowClient, runs: Sequence[Run]) -> None:
    for run in runs:
        client.delete_run(run.info.run_id)


def _value(run: Run) -> str | None:
    value: str | None = run.data.params.get(IDENTITY)
    return value
