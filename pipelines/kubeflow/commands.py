"""The commands `brainseg submit` and `brainseg schedule`."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.errors import UserError
from pipelines import options
from pipelines.extras import require_extras
from pipelines.settings import defaults
from pipelines.terminal import print_line, print_result

if TYPE_CHECKING:  # imported by the commands that need them: `--help` must be quick
    from pipelines.kubeflow.client import Kubeflow
    from pipelines.kubeflow.follow import Outcome
    from pipelines.kubeflow.order import Prepared
    from pipelines.kubeflow.schedule import Existing, ScheduleFile
    from pipelines.kubeflow.submit import Submitted
    from pipelines.placement.images import Images

schedules = typer.Typer(
    name="schedule",
    help="Create, list and change recurring runs in Kubeflow.\n\nExample: brainseg schedule list",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
Experiment = Annotated[str, typer.Option(help="Experiment of the runs in Kubeflow.")]


@dataclass(frozen=True)
class Installation:
    """An installation of Kubeflow Pipelines, as the options name it."""

    endpoint: options.Endpoint = ""
    namespace: Annotated[
        str, typer.Option(help="Namespace of the runs; needed in a multi-user installation.")
    ] = ""

    def connect(self) -> "Kubeflow":
        """Connects to it."""
        require_extras("pipelines")
        from pipelines.kubeflow.client import connect

        return connect(self.endpoint, self.namespace)


def order(
    source: options.SharedSource,
    store: options.SharedStore,
    pipeline: options.Pipeline = defaults.PIPELINE,
    preset: options.Preset = defaults.PRESET,
    changes: options.Changes = None,
    parameters: options.Parameters = None,
    profile: options.Profile = defaults.PROFILE,
    service_account: Annotated[
        str, typer.Option(help="Service account of the pods (default: the installation's).")
    ] = "",
    mlflow_experiment: Annotated[
        str, typer.Option(help="Experiment for KFP's MLflow plugin; empty: its own default.")
    ] = "brainseg",
    mlflow_plugin: Annotated[
        bool,
        typer.Option(
            "--mlflow-plugin/--no-mlflow-plugin",
            help="Let KFP's MLflow plugin create runs; switch it off if pods use another "
            "MLflow server.",
        ),
    ] = True,
) -> dict[str, Any]:
    """The values of an `Order`."""
    values = {
        **locals(),
        "parameters": options.read_parameters(parameters),
        "set": tuple(changes or ()),
    }
    del values["changes"]
    return values


@options.with_options(order, options.read_images, Installation)
def submit(
    values: dict[str, Any],
    images: "Images",
    installation: Installation,
    experiment: Experiment = "brainseg",
    run_name: Annotated[
        str, typer.Option(help="Name of the run (default: pipeline and time).")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; fail if the run fails.")
    ] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Run a pipeline on a cluster with Kubeflow Pipelines.

    \b
    Example: brainseg submit --source s3://mri/raw --store s3://mri/store \\
      --profile gpu --registry registry.example/team --wait
    """  # noqa: D301  # Typer keeps the lines of a paragraph that begins with \b
    from components.shared.config import build_config
    from pipelines.kubeflow.order import Order, prepare
    from pipelines.kubeflow.submit import submit as send

    wanted = build_config(Order, values, "submit")
    name = run_name or f"{wanted.pipeline} {datetime.now():%Y-%m-%d %H:%M:%S}"
    prepared = prepare(wanted, images, run_name)
    if dry_run:
        _print_plan(prepared, name, experiment, as_json)
        return
    kubeflow = installation.connect()
    submitted = send(kubeflow, prepared, name=name, experiment=experiment)
    outcome = _follow(kubeflow, submitted, prepared, installation.namespace) if wait else None
    _print_run(submitted, outcome, as_json)


@schedules.command()
@options.with_options(order, options.read_images, Installation)
def create(
    values: dict[str, Any],
    images: "Images",
    installation: Installation,
    name: Name,
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, weekday; UTC.")],
    experiment: Experiment = "brainseg",
    timezone: Annotated[
        str, typer.Option(help="Only UTC; for another zone, the error names an alternative.")
    ] = "UTC",
    latest: Annotated[
        bool, typer.Option("--latest", help="Always run the newest version of the pipeline.")
    ] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Create a schedule, or replace the one with this name.

    \b
    Example: brainseg schedule create nightly --cron '0 3 * * *' \\
      --source s3://mri/raw --store s3://mri/store --registry r.example/team
    """  # noqa: D301
    from components.shared.config import build_config
    from pipelines.kubeflow.schedule import Schedule, ScheduleFile

    values |= {"name": name, "cron": cron, "timezone": timezone, "latest": latest}
    schedule = build_config(Schedule, {**values, "paused": paused}, "schedule")
    file = ScheduleFile(experiment=experiment, schedules=(schedule,))
    _apply(file, images, installation, prune=False, dry_run=dry_run)


@schedules.command()
@options.with_options(options.read_images, Installation)
def apply(
    images: "Images",
    installation: Installation,
    path: Annotated[Path, typer.Argument(metavar="SCHEDULES.YAML", help="File of schedules.")],
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete schedules of its experiment that it does not list."),
    ] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Create, replace, pause and resume schedules until they match a file.

    Example: brainseg schedule apply schedules.yaml --registry registry.example/team --prune
    """
    from pipelines.kubeflow.schedule import read_schedules

    file = read_schedules(path.expanduser())
    _apply(file, images, installation, prune=prune, dry_run=dry_run)


@schedules.command(name="list")
@options.with_options(Installation)
def list_all(installation: Installation, as_json: options.Json = False) -> None:
    """List the schedules and their next start times.

    Example: brainseg schedule list
    """
    kubeflow = installation.connect()
    from pipelines.kubeflow.apply import list_schedules
    from pipelines.kubeflow.schedule import duplicates

    found = list_schedules(kubeflow)
    lines = map(_schedule_line, found) if found else ("no schedules",)
    print_result([vars(one) for one in found], *lines, as_json=as_json)
    for name, number in duplicates(found).items():
        print_line(f"{number} schedules are called {name}: apply or delete it", err=True)


@schedules.command()
@options.with_options(Installation)
def pause(installation: Installation, name: Name) -> None:
    """Stop a schedule from starting runs.

    Example: brainseg schedule pause nightly
    """
    kubeflow, found = _find(name, installation)
    from pipelines.kubeflow.apply import switch

    for one in found:
        switch(kubeflow, one, enabled=False)
    print_line(f"{name} is paused; a run that has started is not affected")


@schedules.command()
@options.with_options(Installation)
def resume(installation: Installation, name: Name) -> None:
    """Let a paused schedule start runs again.

    Example: brainseg schedule resume nightly
    """
    kubeflow, found = _find(name, installation)
    from pipelines.kubeflow.apply import switch

    if len(found) > 1:
        raise UserError(
            f"{len(found)} schedules are called {name!r}, and both would run: leave one by "
            "`brainseg schedule apply` or `create`, or delete it"
        )
    switch(kubeflow, found[0], enabled=True)
    # GetNextScheduledTimeNoCatchup in backend/src/crd/controller/scheduledworkflow/util
    print_line(f"{name} is resumed; if a start was missed, Kubeflow starts one run now")


@schedules.command()
@options.with_options(Installation)
def delete(installation: Installation, name: Name) -> None:
    """Delete a schedule, or all with this name; their runs stay.

    Example: brainseg schedule delete nightly
    """
    kubeflow, found = _find(name, installation)
    from pipelines.kubeflow.apply import carry_out
    from pipelines.kubeflow.schedule import removal

    carry_out(kubeflow, removal(name, found))
    more = f" ({len(found)} of this name)" if len(found) > 1 else ""
    print_line(f"{name} is deleted{more}; its runs stay")


def _apply(
    file: "ScheduleFile",
    images: "Images",
    installation: Installation,
    *,
    prune: bool,
    dry_run: bool,
) -> None:
    from pipelines.kubeflow.apply import apply_file
    from pipelines.kubeflow.cron import next_times
    from pipelines.kubeflow.order import prepare

    prepared = {one.name: prepare(one, images, one.name) for one in file.schedules}
    for one in file.schedules:
        print_line(f"{one.name} ({one.parsed_cron}, in UTC) starts next at")
        for time in next_times(one.parsed_cron, datetime.now(UTC)):
            local = f"{time.astimezone():%a %Y-%m-%d %H:%M %Z}"
            typer.echo(f"  {time:%a %Y-%m-%d %H:%M} UTC = {local}")
    kubeflow = installation.connect()
    apply_file(kubeflow, file, prepared, print_line, prune=prune, dry_run=dry_run)
    if dry_run:
        typer.echo("nothing was changed (--dry-run)")


def _find(name: str, installation: Installation) -> "tuple[Kubeflow, list[Existing]]":
    kubeflow = installation.connect()
    from pipelines.kubeflow.apply import list_schedules
    from pipelines.kubeflow.schedule import with_name

    return kubeflow, with_name(list_schedules(kubeflow), name)


def _follow(
    kubeflow: "Kubeflow", submitted: "Submitted", prepared: "Prepared", namespace: str
) -> "Outcome":
    from pipelines.kubeflow.follow import Follower
    from pipelines.kubeflow.pods import Pods

    place = submitted.link or submitted.run_id
    typer.echo(f"run {submitted.name}: {place}", err=True)
    # An installation for a single user runs its pods in its own namespace.
    pods = Pods(kubeflow.namespace or namespace or "kubeflow")
    # stdout is for results
    follower = Follower(
        kubeflow,
        pods,
        prepared.steps,
        lambda line: print_line(f"{datetime.now():%H:%M:%S} {line}", err=True),
    )
    try:
        return follower.follow(submitted)
    except KeyboardInterrupt:
        end = f"`kfp run terminate {submitted.run_id}`, or its page"
        typer.echo(f"\nthe run continues: {place}. To end it: {end}", err=True)
        raise typer.Exit(130) from None


def _print_run(submitted: "Submitted", outcome: "Outcome | None", as_json: bool) -> None:
    where = submitted.link or f"{submitted.run_id} (set KF_PIPELINES_UI_ENDPOINT for its address)"
    name, version = submitted.name, submitted.version
    result: dict[str, Any] = {"run_id": submitted.run_id, "name": name, "url": submitted.link}
    result["pipeline_version"] = version.name
    if outcome is None:
        line = f"run {name} of {'new ' if version.is_new else ''}version {version.name}: {where}"
        print_result(result, line, as_json=as_json)
        return
    result |= {"state": outcome.state, "reasons": dict(outcome.reasons)}
    if as_json or outcome.succeeded:
        print_result(result, f"run {name} has succeeded: {where}", as_json=as_json)
    if not outcome.succeeded:
        reasons = [f"step {step}: {reason}" for step, reason in outcome.reasons.items()]
        end = "was canceled" if outcome.state == "CANCELED" else "has failed"
        raise UserError("; ".join([f"run {name} {end}", *reasons, f"see {where}"]))


def _print_plan(prepared: "Prepared", name: str, experiment: str, as_json: bool) -> None:
    from pipelines.kubeflow.order import plugins_input

    plan = {
        "run": name,
        "experiment": experiment,
        "pipeline": prepared.package.name,
        "pipeline_version": prepared.package.version,
        "parameters": dict(prepared.arguments),
        "service_account": prepared.order.service_account,
        "plugins_input": plugins_input(prepared.order),
    }
    lines = (f"  {key:17} {json.dumps(value)}" for key, value in plan.items())
    print_result(plan, "would be sent (--dry-run):", *lines, as_json=as_json)


def _schedule_line(one: "Existing") -> str:
    from pipelines.kubeflow.cron import next_times, parse_cron

    try:
        when = f"{next_times(parse_cron(one.five_fields), datetime.now(UTC), 1)[0]:%Y-%m-%d %H:%M}"
    except UserError:
        when = "unknown"
    state = f"next {when} UTC" if one.enabled else "paused"
    follows = one.pipeline_version_id or "latest version"
    return f"{one.name:24} {one.five_fields:16} {state:28} {follows}"
