"""The commands `brainseg submit` and `brainseg schedule`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.errors import UserError
from pipelines import options
from pipelines.extras import require_extras
from pipelines.settings import defaults
from pipelines.terminal import print_json, print_line

if TYPE_CHECKING:  # imported by the commands that need them: `--help` must be quick
    from pipelines.kubeflow.client import Kubeflow
    from pipelines.kubeflow.cron import Cron
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
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            metavar="NAME=VALUE",
            help="Set another parameter of the pipeline; repeatable.",
        ),
    ] = None,
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
    return {
        "source": source,
        "store": store,
        "pipeline": pipeline,
        "preset": preset,
        "set": tuple(changes or ()),
        "parameters": _parameters(parameters),
        "profile": profile,
        "service_account": service_account,
        "mlflow_experiment": mlflow_experiment,
        "mlflow_plugin": mlflow_plugin,
    }


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

    values |= {
        "name": name,
        "cron": cron,
        "timezone": timezone,
        "latest": latest,
        "paused": paused,
    }
    schedule = build_config(Schedule, values, "schedule")
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
    if as_json:
        print_json([vars(one) for one in found])
        return
    for one in found:
        print_line(_schedule_line(one))
    for name, number in duplicates(found).items():
        print_line(f"{number} schedules are called {name}: apply or delete it", err=True)
    if not found:
        typer.echo("no schedules")


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
    from pipelines.kubeflow.order import prepare

    prepared = {one.name: prepare(one, images, one.name) for one in file.schedules}
    for one in file.schedules:
        _print_times(one.name, one.parsed_cron)
    kubeflow = installation.connect()
    apply_file(kubeflow, file, prepared, print_line, prune=prune, dry_run=dry_run)
    if dry_run:
        typer.echo("nothing was changed (--dry-run)")


def _find(name: str, installation: Installation) -> "tuple[Kubeflow, list[Existing]]":
    kubeflow = installation.connect()
    from pipelines.kubeflow.apply import list_schedules
    from pipelines.kubeflow.schedule import with_name

    return kubeflow, with_name(list_schedules(kubeflow), name)


def _parameters(given: Iterable[str] | None) -> dict[str, Any]:
    import yaml

    from components.shared.config import load_yaml

    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise UserError(f"--parameter {text!r} is not understood; the form is NAME=VALUE")
        try:
            found[name.strip()] = load_yaml(value)
        except yaml.YAMLError as error:
            raise UserError(f"--parameter {text!r}: the value is not valid YAML") from error
    return found


def _follow(
    kubeflow: "Kubeflow", submitted: "Submitted", prepared: "Prepared", namespace: str
) -> "Outcome":
    from pipelines.kubeflow.follow import Follower
    from pipelines.kubeflow.pods import Pods

    typer.echo(f"run {submitted.name}: {submitted.link or submitted.run_id}", err=True)
    # An installation for a single user runs its pods in its own namespace.
    place = kubeflow.namespace or namespace or "kubeflow"
    follower = Follower(kubeflow, Pods(place), prepared.steps, _print_progress)
    try:
        return follower.follow(submitted)
    except KeyboardInterrupt:
        typer.echo(
            f"\nthe run continues: {submitted.link or submitted.run_id}. To end it: `kfp run "
            f"terminate {submitted.run_id}`, or its page",
            err=True,
        )
        raise typer.Exit(130) from None


def _print_run(submitted: "Submitted", outcome: "Outcome | None", as_json: bool) -> None:
    if as_json:
        ended = {"state": outcome.state, "reasons": dict(outcome.reasons)} if outcome else {}
        result = {"run_id": submitted.run_id, "name": submitted.name, "url": submitted.link}
        print_json({**result, "pipeline_version": submitted.version.name, **ended})
    elif outcome is None:
        version = f"{'new ' if submitted.version.is_new else ''}version {submitted.version.name}"
        typer.echo(f"run {submitted.name} of {version}: {_where(submitted)}")
    elif outcome.succeeded:
        typer.echo(f"run {submitted.name} has succeeded: {_where(submitted)}")
    if outcome is not None and not outcome.succeeded:
        raise UserError(_failure(submitted, outcome))


def _failure(submitted: "Submitted", outcome: "Outcome") -> str:
    reasons = [f"step {step}: {reason}" for step, reason in outcome.reasons.items()]
    ended = "was canceled" if outcome.state == "CANCELED" else "has failed"
    return "; ".join([f"run {submitted.name} {ended}", *reasons, f"see {_where(submitted)}"])


def _where(submitted: "Submitted") -> str:
    if submitted.link:
        return submitted.link
    return f"{submitted.run_id} (set KF_PIPELINES_UI_ENDPOINT for its address)"


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
    if as_json:
        print_json(plan)
        return
    typer.echo("would be sent (--dry-run):")
    for key, value in plan.items():
        print_line(f"  {key:17} {json.dumps(value)}")


def _print_times(name: str, cron: "Cron") -> None:
    from pipelines.kubeflow.cron import next_times

    print_line(f"{name} ({cron}, in UTC) starts next at")
    for time in next_times(cron, datetime.now(UTC)):
        typer.echo(f"  {time:%a %Y-%m-%d %H:%M} UTC = {time.astimezone():%a %Y-%m-%d %H:%M %Z}")


def _schedule_line(one: "Existing") -> str:
    from pipelines.kubeflow.cron import next_times, parse_cron

    try:
        when = f"{next_times(parse_cron(one.five_fields), datetime.now(UTC), 1)[0]:%Y-%m-%d %H:%M}"
    except UserError:
        when = "unknown"
    state = f"next {when} UTC" if one.enabled else "paused"
    follows = one.pipeline_version_id or "latest version"
    return f"{one.name:24} {one.five_fields:16} {state:28} {follows}"


def _print_progress(line: str) -> None:
    """Prints the time and a line to stderr; stdout is for results."""
    print_line(f"{datetime.now():%H:%M:%S} {line}", err=True)
