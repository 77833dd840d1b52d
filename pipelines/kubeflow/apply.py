"""Reconciles recurring runs with a schedules file.

A schedule is replaced in an order in which it is never enabled twice and never missing: create the
new one disabled, disable the old ones, enable the new one, delete the old ones. After an
interruption, the next call continues from there. KFP changes one recurring run per call, so for a
moment either both are enabled or none: a late run is better than two. A start time in that moment
is not lost: the controller starts the run when the new one is enabled. An interruption in that
moment leaves none enabled; the error message reports it.
"""

from collections.abc import Callable, Mapping
from typing import cast

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
    recurring_run,
    removal,
    unlisted,
)
from pipelines.kubeflow.submit import create_experiment, find_experiment
from pipelines.kubeflow.upload import find, find_or_upload


def apply_file(
    kubeflow: Kubeflow,
    file: ScheduleFile,
    prepared: Mapping[str, Prepared],
    report: Callable[[str], None],
    *,
    prune: bool,
    dry_run: bool,
) -> None:
    """Creates, replaces, pauses, resumes and deletes schedules until they match a file.

    Args:
        kubeflow: Installation.
        file: Wanted schedules.
        prepared: Their runs, by the name of the schedule.
        report: Function that gets one line per schedule before it is changed.
        prune: Delete schedules of `brainseg` in the file's experiment that the file does not list.
        dry_run: Report and change nothing.
    """
    experiment_id = find_experiment(kubeflow, file.experiment)
    if not (experiment_id or dry_run):
        experiment_id = create_experiment(kubeflow, file.experiment)
    before = list_schedules(kubeflow)
    for schedule in file.schedules:
        run, enabled = prepared[schedule.name], not schedule.paused
        version = (find if dry_run else find_or_upload)(kubeflow, run.package)
        body = recurring_run(schedule, run, version, experiment_id)
        change = plan(schedule.name, digest_of(body), before, enabled=enabled)
        uploaded = ", with a new pipeline version" if version.is_new else ""
        report(f"{schedule.name}: {change}{uploaded}")
        if change.needed and not dry_run:
            upsert(kubeflow, body, enabled=enabled)
    extra = unlisted(file, before, experiment_id) if prune else []
    for name in sorted({one.name for one in extra}):
        report(f"{name}: delete, because the file does not list it")
        if not dry_run:
            carry_out(kubeflow, removal(name, extra))


def list_schedules(kubeflow: Kubeflow, name: str = "") -> list[Existing]:
    """The schedules of a namespace, of all experiments."""
    service = kubeflow.api.recurring_runs.recurring_run_service_list_recurring_runs
    filters = {"filter": equals("display_name", name)} if name else {}
    rows = kubeflow.rows(service, "recurring_runs", namespace=kubeflow.namespace, **filters)
    found = [existing(row) for row in rows]
    return sorted((one for one in found if name in ("", one.name)), key=lambda one: one.name)


def upsert(kubeflow: Kubeflow, body: kfp_server_api.V2beta1RecurringRun, *, enabled: bool) -> None:
    """Creates, keeps or replaces the schedule of a name.

    Raises `UserError` if another process changes the same schedule at the same time. If Kubeflow
    refuses, the previous schedule still exists, and the message reports if it may be disabled.
    """
    name, digest = body.display_name, digest_of(body)
    change = plan(name, digest, list_schedules(kubeflow, name), enabled=enabled)
    if change.create:
        kubeflow.ask(_service(kubeflow, "create_recurring_run"), body)
        # Two processes at the same time find both new ones here, and agree on the older one.
        change = plan(name, digest, list_schedules(kubeflow, name), enabled=enabled)
    carry_out(kubeflow, change)
    if sum(one.enabled for one in list_schedules(kubeflow, name)) > 1:
        raise UserError(
            f"schedule {name!r} is enabled twice: another process has just changed it; repeat "
            "this command when that one has ended"
        )


def carry_out(kubeflow: Kubeflow, change: Change) -> None:
    """Disables, switches and deletes in an order that never leaves two enabled.

    Runs that a deleted schedule has started continue. The message of a refusal reports if perhaps
    no schedule is enabled.
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
            f"{error}. Perhaps no schedule {change.name!r} is enabled now, so no runs start: "
            "repeat this command",
            error.status,
        ) from error
    for one in change.delete:
        # The workflows belong to the schedule: by default Kubernetes deletes them with it.
        _ask_of_other(kubeflow, "delete_recurring_run", one, propagation_policy="ORPHAN")


def switch(kubeflow: Kubeflow, schedule: Existing, *, enabled: bool) -> None:
    """Pauses or resumes a schedule."""
    verb = "enable" if enabled else "disable"
    kubeflow.ask(_service(kubeflow, f"{verb}_recurring_run"), schedule.id)


def _ask_of_other(kubeflow: Kubeflow, verb: str, one: Existing, **options: str) -> None:
    """Calls a service for a schedule that another process may have deleted already."""
    try:
        kubeflow.ask(_service(kubeflow, verb), one.id, **options)
    except KubeflowError as error:
        if error.status != 404:
            raise


def _service(kubeflow: Kubeflow, verb: str) -> Callable[..., object]:
    found = getattr(kubeflow.api.recurring_runs, f"recurring_run_service_{verb}")
    return cast("Callable[..., object]", found)
