"""A schedule that fires each minute, overlaps, is paused, resumed, replaced and deleted."""

import time
import uuid

import pytest

from pipelines.kubeflow.apply import list_schedules
from tests.kubeflow.conftest import ENDED, PATIENTS, Run
from tests.waiting import until

pytestmark = pytest.mark.kubeflow

A_MINUTE_S = 60


@pytest.fixture(scope="module")
def name(installation):
    """Name of the schedule; whatever a failed test has left of it is deleted."""
    name = f"check-{uuid.uuid4().hex[:6]}"
    yield name
    if list_schedules(installation.kubeflow, name):
        installation.plain("schedule delete", name)


def create(installation, name, *words):
    done = installation.brainseg(
        "schedule create", name, "--cron", "* * * * *", "--pipeline", "retraining",
        "--source", f"synthetic:{PATIENTS}", *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def only(installation, name):
    (found,) = list_schedules(installation.kubeflow, name)
    return found


def runs(installation, name):
    """The runs that schedules of this name have started, the newest first."""
    service = installation.kubeflow.api.runs.run_service_list_runs
    rows = installation.kubeflow.rows(
        service, "runs", sort_by="created_at desc", namespace=installation.kubeflow.namespace
    )
    return [row for row in rows if row.display_name.startswith(name)]


def until_started(installation, name, known):
    """Waits for a run that is not among the known ones; returns it."""

    def new():
        return next((run for run in runs(installation, name) if run.run_id not in known), None)

    run = until(new, "start of a run", 3 * A_MINUTE_S, 2)
    installation.started.append(found := Run(run.run_id, run.display_name))
    return found


def test_a_schedule_in_its_life(installation, name):
    create(installation, name)
    first = until_started(installation, name, ())
    time.sleep(1.5 * A_MINUTE_S)  # longer than to the next start time
    if installation.state(first) not in ENDED:
        assert len(runs(installation, name)) == 1, "a second run has started beside the first"

    installation.plain("schedule pause", name)
    assert not only(installation, name).enabled
    before = only(installation, name).id
    out = create(installation, name, "--paused", "--set", "profile.min_patients=5")
    assert "replace" in out
    assert only(installation, name).id != before
    installation.succeeds(first)

    known = {run.run_id for run in runs(installation, name)}
    time.sleep(1.5 * A_MINUTE_S)
    assert {run.run_id for run in runs(installation, name)} == known, "a paused schedule started"

    installation.plain("schedule resume", name)
    second = until_started(installation, name, known)
    installation.plain("schedule delete", name)
    assert list_schedules(installation.kubeflow, name) == []
    installation.succeeds(second)  # the data is known: it ends early
    assert installation.steps(second)["notify"] == "Succeeded"
    time.sleep(1.5 * A_MINUTE_S)
    assert {run.run_id for run in runs(installation, name)} == {*known, second.id}
