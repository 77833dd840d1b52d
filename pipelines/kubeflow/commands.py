"""`brainseg submit` and `brainseg schedule`: the command line's side of Kubeflow Pipelines."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.errors import UserError
from components.shared.printable import printable
from pipelines.extras import require_extras
from pipelines.settings import defaults

if TYPE_CHECKING:  # imported when a command needs them: `--help` must be quick
    from pipelines.kubeflow.client import Kubeflow
    from pipelines.kubeflow.cron import Cron
    from pipelines.kubeflow.follow import Outcome
    from pipelines.kubeflow.order import Prepared
    from pipelines.kubeflow.schedule import Existing, ScheduleFile
    from pipelines.kubeflow.submit import Submitted
    from pipelines.placement.images import Images

schedules = typer.Typer(
    name="schedule",
    help="Keep runs that come again and again.\n\nExample: brainseg schedule list",
    no_args_is_help=True,
)

Source = Annotated[
    str, typer.Option(help="s3://bucket/prefix, kaggle:owner/dataset or synthetic:PATIENTS.")
]
Store = Annotated[str, typer.Option(help="s3://bucket/prefix.")]
PipelineName = Annotated[str, typer.Option("--pipeline", help="Name of the pipeline.")]
Preset = Annotated[str, typer.Option(help="Name or .yaml file of all steps' settings.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.KEY=VALUE", help="Change a setting; repeatable."),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter", metavar="NAME=VALUE", help="Another parameter of the pipeline; repeatable."
    ),
]
Profile = Annotated[str, typer.Option(help="Pods' settings: cpu, gpu, test or a .yaml file.")]
Registry = Annotated[str, typer.Option(help="Where images are pulled from: HOST/FOLDER.")]
Digests = Annotated[
    Path | None, typer.Option(help="JSON of image -> sha256:..., as `make push` writes it.")
]
Address = Annotated[
    str,
    typer.Option(
        "--endpoint", help="Kubeflow Pipelines; else KF_PIPELINES_ENDPOINT, the pod's, kubeconfig."
    ),
]
Namespace = Annotated[
    str, typer.Option(help="Of the runs; needed where an installation has many users.")
]
Experiment = Annotated[str, typer.Option(help="The group of runs in Kubeflow.")]
ServiceAccount = Annotated[str, typer.Option(help="Of the pods; else the installation's.")]
MlflowExperiment = Annotated[
    str, typer.Option(help="For Kubeflow's MLflow plugin; empty: none is named.")
]
MlflowPlugin = Annotated[
    bool,
    typer.Option(
        "--mlflow-plugin/--no-mlflow-plugin",
        help="Let Kubeflow's MLflow plugin make runs; not where pods have another server.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts on stdout.")]


def submit(
    source: Source,
    store: Store,
    pipeline: PipelineName = "training",
    preset: Preset = defaults.PRESET,
    changes: Changes = None,
    parameters: Parameters = None,
    profile: Profile = defaults.PROFILE,
    registry: Registry = "",
    digests: Digests = None,
    endpoint: Address = "",
    namespace: Namespace = "",
    experiment: Experiment = "brainseg",
    service_account: ServiceAccount = "",
    mlflow_experiment: MlflowExperiment = "brainseg",
    mlflow_plugin: MlflowPlugin = True,
    run_name: Annotated[str, typer.Option(help="What the run is called.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run a pipeline on a cluster, by Kubeflow Pipelines.

    Example: brainseg submit --source s3://mri/raw --store s3://mri/brainseg --profile gpu
    --registry registry.example/team --wait
    """
    require_extras("pipelines")
    from components.shared.config import build_config
    from pipelines.kubeflow.client import connect
    from pipelines.kubeflow.order import Order, prepare
    from pipelines.kubeflow.submit import submit as send
    from pipelines.placement.images import read_images

    values = {
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
    order = build_config(Order, values, "submit")
    name = run_name or f"{pipeline} {datetime.now():%Y-%m-%d %H:%M:%S}"
    prepared = prepare(
        order, read_images(registry, digests), run_name=run_name or Path(preset).stem
    )
    if dry_run:
        _tell_plan(prepared, name, experiment, as_json)
        return
    kubeflow = connect(endpoint, namespace)
    submitted = send(kubeflow, prepared, name=name, experiment=experiment)
    outcome = _follow(kubeflow, submitted, prepared, namespace) if wait else None
    _tell_run(submitted, outcome, as_json)


@schedules.command()
def create(
    name: Annotated[str, typer.Argument(help="What the schedule is called.")],
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, day of week, in UTC.")],
    source: Source,
    store: Store,
    pipeline: PipelineName = "training",
    preset: Preset = defaults.PRESET,
    changes: Changes = None,
    parameters: Parameters = None,
    profile: Profile = defaults.PROFILE,
    registry: Registry = "",
    digests: Digests = None,
    endpoint: Address = "",
    namespace: Namespace = "",
    experiment: Experiment = "brainseg",
    service_account: ServiceAccount = "",
    mlflow_experiment: MlflowExperiment = "brainseg",
    mlflow_plugin: MlflowPlugin = True,
    timezone: Annotated[str, typer.Option(help="Only UTC; others say how.")] = "UTC",
    latest: Annotated[
        bool, typer.Option("--latest", help="Follow the pipeline's newest version.")
    ] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Start no runs yet.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Make a schedule, or replace the one of this name.

    Example: brainseg schedule create nightly --cron '0 3 * * *' --source s3://mri/raw
    --store s3://mri/brainseg --registry registry.example/team
    """
    require_extras("pipelines")
    from components.shared.config import build_config
    from pipelines.kubeflow.schedule import Schedule, ScheduleFile
    from pipelines.placement.images import read_images

    values = {
        "name": name,
        "cron": cron,
        "timezone": timezone,
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
        "latest": latest,
        "paused": paused,
    }
    schedule = build_config(Schedule, values, "schedule")
    file = ScheduleFile(experiment=experiment, schedules=(schedule,))
    _apply(file, read_images(registry, digests), endpoint, namespace, prune=False, dry_run=dry_run)


@schedules.command()
def apply(
    path: Annotated[Path, typer.Argument(metavar="SCHEDULES.YAML")],
    registry: Registry = "",
    digests: Digests = None,
    endpoint: Address = "",
    namespace: Namespace = "",
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete those of the file's experiment that it lacks."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Make Kubeflow's schedules those of a file: create, replace, pause, resume.

    Example: brainseg schedule apply schedules.yaml --registry registry.example/team --prune
    """
    require_extras("pipelines")
    from pipelines.kubeflow.schedule import read_schedules
    from pipelines.placement.images import read_images

    file = read_schedules(path.expanduser())
    _apply(file, read_images(registry, digests), endpoint, namespace, prune=prune, dry_run=dry_run)


@schedules.command(name="list")
def list_all(endpoint: Address = "", namespace: Namespace = "", as_json: Json = False) -> None:
    """List the schedules with their next times.

    Example: brainseg schedule list
    """
    require_extras("pipelines")
    from pipelines.kubeflow.apply import list_schedules
    from pipelines.kubeflow.client import connect
    from pipelines.kubeflow.schedule import duplicates

    found = list_schedules(connect(endpoint, namespace))
    if as_json:
        _print_json([vars(one) for one in found])
        return
    for one in found:
        typer.echo(printable(_schedule_line(one)))
    for name, number in duplicates(found).items():
        typer.echo(printable(f"{number} schedules are called {name}: apply or delete it"), err=True)
    if not found:
        typer.echo("no schedules")


@schedules.command()
def pause(name: str, endpoint: Address = "", namespace: Namespace = "") -> None:
    """Let a schedule start no runs.

    Example: brainseg schedule pause nightly
    """
    kubeflow, found = _find(name, endpoint, namespace)
    from pipelines.kubeflow.apply import switch

    for one in found:
        switch(kubeflow, one, enabled=False)
    typer.echo(printable(f"{name} is paused; a run that goes on is not touched"))


@schedules.command()
def resume(name: str, endpoint: Address = "", namespace: Namespace = "") -> None:
    """Let a paused schedule start runs again.

    Example: brainseg schedule resume nightly
    """
    kubeflow, found = _find(name, endpoint, namespace)
    from pipelines.kubeflow.apply import switch

    if len(found) > 1:
        raise UserError(
            f"{len(found)} schedules are called {name!r}, and both would run: leave one by "
            "`brainseg schedule apply` or `create`, or delete it"
        )
    switch(kubeflow, found[0], enabled=True)
    # GetNextScheduledTimeNoCatchup in backend/src/crd/controller/scheduledworkflow/util
    typer.echo(
        printable(f"{name} is resumed; if a time has passed meanwhile, Kubeflow starts one run now")
    )


@schedules.command()
def delete(name: str, endpoint: Address = "", namespace: Namespace = "") -> None:
    """Delete a schedule, all of that name; its runs go on and stay.

    Example: brainseg schedule delete nightly
    """
    kubeflow, found = _find(name, endpoint, namespace)
    from pipelines.kubeflow.apply import carry_out
    from pipelines.kubeflow.schedule import removal

    carry_out(kubeflow, removal(name, found))
    more = f" ({len(found)} of this name)" if len(found) > 1 else ""
    typer.echo(printable(f"{name} is deleted{more}; its runs stay"))


def _apply(
    file: "ScheduleFile",
    images: "Images",
    endpoint: str,
    namespace: str,
    *,
    prune: bool,
    dry_run: bool,
) -> None:
    from pipelines.kubeflow.apply import apply_file
    from pipelines.kubeflow.client import connect
    from pipelines.kubeflow.order import prepare

    prepared = {one.name: prepare(one, images, run_name=one.name) for one in file.schedules}
    for one in file.schedules:
        _tell_times(one.name, one.parsed_cron)
    kubeflow = connect(endpoint, namespace)
    apply_file(kubeflow, file, prepared, _tell, prune=prune, dry_run=dry_run)
    if dry_run:
        typer.echo("nothing was changed (--dry-run)")


def _find(name: str, endpoint: str, namespace: str) -> "tuple[Kubeflow, list[Existing]]":
    require_extras("pipelines")
    from pipelines.kubeflow.apply import list_schedules
    from pipelines.kubeflow.client import connect
    from pipelines.kubeflow.schedule import named

    kubeflow = connect(endpoint, namespace)
    return kubeflow, named(list_schedules(kubeflow), name)


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
    # an installation for one user runs its pods where it is itself
    place = kubeflow.namespace or namespace or "kubeflow"
    follower = Follower(kubeflow, Pods(place), prepared.steps, _tell_now)
    try:
        return follower.follow(submitted)
    except KeyboardInterrupt:
        typer.echo(
            f"\nthe run goes on: {submitted.link or submitted.run_id}. To end it: `kfp run "
            f"terminate {submitted.run_id}`, or in its page",
            err=True,
        )
        raise typer.Exit(130) from None


def _tell_run(submitted: "Submitted", outcome: "Outcome | None", as_json: bool) -> None:
    if as_json:
        ended = {"state": outcome.state, "reasons": dict(outcome.reasons)} if outcome else {}
        told = {"run_id": submitted.run_id, "name": submitted.name, "url": submitted.link}
        _print_json({**told, "pipeline_version": submitted.version.name, **ended})
    elif outcome is None:
        typer.echo(f"run {submitted.name} of {_version(submitted)}: {_where(submitted)}")
    elif outcome.succeeded:
        typer.echo(f"run {submitted.name} has succeeded: {_where(submitted)}")
    if outcome is not None and not outcome.succeeded:
        raise UserError(_failure(submitted, outcome))


def _failure(submitted: "Submitted", outcome: "Outcome") -> str:
    reasons = [f"step {step}: {reason}" for step, reason in outcome.reasons.items()]
    ended = "was cancelled" if outcome.state == "CANCELED" else "has failed"
    return "; ".join([f"run {submitted.name} {ended}", *reasons, f"see {_where(submitted)}"])


def _version(submitted: "Submitted") -> str:
    new = "new version" if submitted.version.is_new else "version"
    return f"{new} {submitted.version.name}"


def _where(submitted: "Submitted") -> str:
    if submitted.link:
        return submitted.link
    return f"{submitted.run_id} (KF_PIPELINES_UI_ENDPOINT would give its address)"


def _tell_plan(prepared: "Prepared", name: str, experiment: str, as_json: bool) -> None:
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
        _print_json(plan)
        return
    typer.echo("would be sent (--dry-run):")
    for key, value in plan.items():
        typer.echo(printable(f"  {key:17} {json.dumps(value)}"))


def _tell_times(name: str, cron: "Cron") -> None:
    from pipelines.kubeflow.cron import next_times

    typer.echo(printable(f"{name} ({cron}, in UTC) comes next at"))
    for time in next_times(cron, datetime.now(UTC)):
        typer.echo(f"  {time:%a %Y-%m-%d %H:%M} UTC = {time.astimezone():%a %Y-%m-%d %H:%M %Z}")


def _schedule_line(one: "Existing") -> str:
    from pipelines.kubeflow.cron import next_times, parse_cron

    try:
        when = f"{next_times(parse_cron(one.five_fields), datetime.now(UTC), 1)[0]:%Y-%m-%d %H:%M}"
    except UserError:
        when = "not one of ours"
    state = f"next {when} UTC" if one.enabled else "paused"
    follows = one.pipeline_version_id or "latest version"
    return f"{one.name:24} {one.five_fields:16} {state:28} {follows}"


def _tell(line: str) -> None:
    typer.echo(printable(line))


def _tell_now(line: str) -> None:
    """Progress, with the time; stdout is for results."""
    typer.echo(printable(f"{datetime.now():%H:%M:%S} {line}"), err=True)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
