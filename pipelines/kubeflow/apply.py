"""Making Kubeflow's schedules what they are to be.

A schedule is replaced in an order in which it is never enabled twice and never gone: the new one
is made disabled, the old ones are disabled, the new one is enabled, the old ones are deleted. Cut
off anywhere, the next time goes on from there. KFP changes one schedule a call, so that between
two calls both are enabled or none is: a run twice is worse than one late. A time that comes while
none is enabled is not lost: the controller makes up for it when the new one is enabled. Cut off
just then, nothing would start runs any more, and the message says so.
"""

from collections.abc import Callable, Mapping

import kfp_server_api

from components.shared.errors import UserError
from pipelines.kubeflow.client import Kubeflow, KubeflowError, equals
from pipelines.kubeflow.order import Prepared
from pipelines.kubeflow.schedule import (
    Change,
    Existing,
    ScheduleFile,
    digest_of,
    existing,
    plan,
    removal,
    unlisted,
    wanted,
)
from pipelines.kubeflow.submit import find_experiment, make_experiment
from pipelines.kubeflow.upload import find, find_or_upload

Tell = Callable[[str], None]


def apply_file(
    kubeflow: Kubeflow,
    file: ScheduleFile,
    prepared: Mapping[str, Prepared],
    tell: Tell,
    *,
    prune: bool,
    dry_run: bool,
) -> None:
    """Creates, replaces, pauses, resumes and deletes until Kubeflow has what a file says.

    Args:
        kubeflow: Where.
        file: What is wanted.
        prepared: Its runs, by the name of the schedule.
        tell: Gets a line for each schedule before it is changed.
        prune: Whether schedules of the file's experiment that it lacks are deleted; only those
            that were made here.
        dry_run: Whether nothing is changed.

    Raises:
        UserError: If there is no such experiment, or Kubeflow refuses.
    """
    experiment_id = _experiment(kubeflow, file.experiment, dry_run=dry_run)
    before = list_schedules(kubeflow)
    for schedule in file.schedules:
        run, enabled = prepared[schedule.name], not schedule.paused
        version = (find if dry_run else find_or_upload)(kubeflow, run.package)
        body = wanted(schedule, run, version, experiment_id)
        change = plan(schedule.name, digest_of(body), before, enabled=enabled)
        uploaded = ", with a new pipeline version" if version.is_new else ""
        tell(f"{schedule.name}: {change}{uploaded}")
        if change.needed and not dry_run:
            upsert(kubeflow, body, enabled=enabled)
    extra = unlisted(file, before, experiment_id) if prune else []
    for name in sorted({one.name for one in extra}):
        tell(f"{name}: delete, for the file does not have it")
        if not dry_run:
            carry_out(kubeflow, removal(name, extra))


def list_schedules(kubeflow: Kubeflow, name: str = "") -> list[Existing]:
    """The schedules of a namespace, of all experiments.

    Args:
        kubeflow: Where.
        name: Only those of this name.
    """
    service = kubeflow.api.recurring_runs.recurring_run_service_list_recurring_runs
    filters = {"filter": equals("display_name", name)} if name else {}
    rows = kubeflow.rows(service, "recurring_runs", namespace=kubeflow.namespace, **filters)
    found = [existing(row) for row in rows]
    return sorted((one for one in found if name in ("", one.name)), key=lambda one: one.name)


def upsert(kubeflow: Kubeflow, body: kfp_server_api.V2beta1RecurringRun, *, enabled: bool) -> None:
    """Makes, keeps or replaces the schedule of a name.

    Raises:
        KubeflowError: If Kubeflow refuses; what was there is then still there, and the message
            says if it may be disabled.
        UserError: If another process changes the same schedule at the same time.
    """
    name, digest = body.display_name, digest_of(body)
    change = plan(name, digest, list_schedules(kubeflow, name), enabled=enabled)
    if change.create:
        kubeflow.ask(_service(kubeflow, "create_recurring_run"), body)
        # two that do this at once find both new ones here, and agree on the older
        change = plan(name, digest, list_schedules(kubeflow, name), enabled=enabled)
    carry_out(kubeflow, change)
    if sum(one.enabled for one in list_schedules(kubeflow, name)) > 1:
        raise UserError(
            f"schedule {name!r} is enabled twice: another process has just changed it; do this "
            "again when that has ended"
        )


def carry_out(kubeflow: Kubeflow, change: Change) -> None:
    """Disables, switches and deletes in an order that never leaves two enabled.

    Runs that a deleted schedule has started go on.

    Raises:
        KubeflowError: If Kubeflow refuses; it says so if none may be enabled that ought to be.
    """
    try:
        for one in change.disable:
            _ask_of_other(kubeflow, "disable_recurring_run", one)
        if change.keep and change.switches:
            switch(kubeflow, change.keep, enabled=change.enabled)
    except KubeflowError as error:
        if not (change.switches and change.enabled):
            raise
        raise KubeflowError(
            f"{error}. Perhaps no schedule {change.name!r} is enabled now, which starts no runs: "
            "do this again",
            error.status,
        ) from error
    for one in change.delete:
        # the workflows belong to the schedule: without this, Kubernetes deletes them with it
        _ask_of_other(kubeflow, "delete_recurring_run", one, propagation_policy="ORPHAN")


def switch(kubeflow: Kubeflow, schedule: Existing, *, enabled: bool) -> None:
    """Pauses or resumes a schedule.

    Raises:
        KubeflowError: If Kubeflow refuses.
    """
    verb = "enable" if enabled else "disable"
    kubeflow.ask(_service(kubeflow, f"{verb}_recurring_run"), schedule.id)


def _experiment(kubeflow: Kubeflow, name: str, *, dry_run: bool) -> str:
    return find_experiment(kubeflow, name) or ("" if dry_run else make_experiment(kubeflow, name))


def _ask_of_other(kubeflow: Kubeflow, verb: str, one: Existing, **options: str) -> None:
    """For one that has to go: another process may have deleted it already."""
    try:
        kubeflow.ask(_service(kubeflow, verb), one.id, **options)
    except KubeflowError as error:
        if error.status != 404:
            raise


def _service(kubeflow: Kubeflow, verb: str) -> Callable[..., object]:
    call: Callable[..., object] = getattr(
        kubeflow.api.recurring_runs, f"recurring_run_service_{verb}"
    )
    return call
