"""The `brainseg` command."""

import logging
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from components.shared.environment import adopt_settings
from components.shared.errors import UserError
from components.shared.model.weights_uri import WEIGHTS_FORMS
from components.shared.printable import printable_lines
from components.shared.process import write_safely
from components.shared.reading.sources.opening import is_local_path
from components.shared.tracking.address import sqlite_file
from pipelines import options
from pipelines.extras import DISTRIBUTION, require_extras
from pipelines.kubeflow.commands import schedules, submit
from pipelines.settings import defaults
from pipelines.terminal import print_json, print_line, print_result

if TYPE_CHECKING:  # imported by the commands that need them: `--help` must be quick
    from components.ingest.settings import IngestSettings
    from components.shared.config import ConfigT
    from components.shared.weights.stored import StoredWeights
    from pipelines.doctor.check import Check
    from pipelines.gc import Findings
    from pipelines.placement.images import Images

app = typer.Typer(
    name="brainseg",
    help="Train, evaluate, register and retrain brain-tumour segmentation models.",
    epilog="Each command explains its options and has an example: brainseg run --help",
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables cut the names of options in a terminal of 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_HOME = Path("brainseg-runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del debug, version  # main() reads --debug wherever it stands on the command line


@app.command(epilog=options.PIPELINES_HELP)
def run(
    source: options.Source,
    store: options.Store = options.LOCAL_STORE,
    pipeline: options.Pipeline = defaults.PIPELINE,
    preset: options.Preset = defaults.PRESET,
    changes: options.Changes = None,
    parameters: options.Parameters = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for result.json, reports and log (default: a new one)."),
    ] = None,
    runner: Annotated[
        Literal["subprocess", "docker"],
        typer.Option(help="docker: run each step in its image, as built by `make images`."),
    ] = "subprocess",
    as_json: options.Json = False,
) -> None:
    """Run a pipeline on this machine, from data to a registered model.

    An interrupted run resumes when it is started again with the same --output.

    Example: brainseg run --source lgg.zip --set train.schedule.epochs=30
    """
    require_extras("trainer", "pipelines")
    _use_local_defaults()
    from pipelines.catalogue import find_pipeline
    from pipelines.running.local import LocalRun, run_locally
    from pipelines.settings.presets import graph_arguments

    graph = find_pipeline(pipeline)
    settings = graph_arguments(graph, preset, changes or ())
    folder = output or _new_folder()
    arguments = {
        "source": _absolute(source),
        "store": _absolute(store),
        **settings,
        **options.read_parameters(parameters),
    }
    result = run_locally(LocalRun(graph, arguments, folder.expanduser().absolute(), runner))
    # a graph with an exit handler has no outputs
    has_outputs = "metrics" in result or "outcome" not in result
    lines = _result_lines(result) if has_outputs else _outcome_lines(result["outcome"])
    print_result(result, "", *lines, as_json=as_json)


@app.command()
def ingest(
    source: options.Source,
    store: options.Store = options.LOCAL_STORE,
    preset: options.Preset = defaults.PRESET,
    changes: options.Changes = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a volume is quarantined.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which file becomes what, and read no image.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Validate volumes and publish them as a data set version.

    Example: brainseg ingest --source Dataset001 --set ingest.layout.name=nnunet --dry-run
    """
    from components.ingest.ingestion import ingest_source
    from components.ingest.plan import plan_ingest, plan_lines
    from components.shared.storage.store import open_store

    settings = _ingest_settings(preset, [*(changes or ()), *["ingest.strict=true"] * strict])
    if dry_run:
        plan = plan_ingest(_absolute(source), settings)
        print_result(plan.model_dump(mode="json"), *plan_lines(plan), as_json=as_json)
        return
    result = ingest_source(_absolute(source), open_store(_absolute(store)), settings)
    account = result.account.model_dump(mode="json")
    print_result(
        account,
        f"data set {account['dataset_id']}: {account['volumes']} volumes, {account['slices']} "
        f"slices, {account['tumour_slices']} with tumour",
        as_json=as_json,
    )


@app.command()
def predict(
    source: options.Source,
    output: Annotated[Path, typer.Option(help="Folder for masks, predictions.csv and the report.")],
    model: Annotated[
        str, typer.Option(help="champion, a URI (models:/..., runs:/...) or a model folder.")
    ] = "champion",
    preset: Annotated[
        str, typer.Option(help="Preset with the layout, in its section ingest.")
    ] = defaults.PRESET,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Segment volumes, labeled or not, with a registered model.

    Example: brainseg predict --model champion --source new-patients/ --output masks/
    """
    require_extras("trainer")
    _use_local_defaults()
    from components.predict.prediction import predict_source
    from components.predict.settings import PredictSettings

    settings = _with_layout(PredictSettings, "predict", preset, changes)
    result = predict_source(model, _absolute(source), output.expanduser(), settings)
    print_result(
        result.model_dump(mode="json"),
        f"{result.predicted} volumes predicted, {result.failed} not, with {result.model} at "
        f"threshold {result.threshold:g}; see {output}",
        as_json=as_json,
    )


@app.command()
def serve(
    model: Annotated[
        str, typer.Option(help="champion, a URI (models:/...@alias, runs:/...) or a model folder.")
    ] = "champion",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    preset: Annotated[
        str, typer.Option(help="Preset with the layout of a .zip, in its section ingest.")
    ] = defaults.PRESET,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable."),
    ] = None,
) -> None:
    """Serve a registered model over HTTP, and follow its alias.

    Example: brainseg serve --model champion --port 8080 --set max_requests=32
    """
    require_extras("trainer")
    _use_local_defaults()
    from pipelines.serving.server import serve as serve_model
    from pipelines.serving.settings import ServeSettings

    settings = _with_layout(ServeSettings, "serve", preset, changes)
    serve_model(model, host, port, settings)


@app.command()
def find_lr(
    source: Annotated[str, typer.Option(help=options.SOURCE_FORMS)] = "",
    dataset_id: Annotated[
        str, typer.Option(help="Id of a data set in the store, in place of --source.")
    ] = "",
    store: options.Store = options.LOCAL_STORE,
    preset: options.Preset = defaults.PRESET,
    changes: options.Changes = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report (default: a new one).")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Suggest a learning rate for a recipe and a data set.

    Example: brainseg find-lr --source lgg.zip --preset best
    """
    if bool(source) == bool(dataset_id):
        raise UserError("give either --source or --dataset-id, a data set that is in the store")
    require_extras("trainer", "pipelines")
    _use_local_defaults()
    from components.shared.storage.store import open_store
    from pipelines.learning_rate import find_learning_rate
    from pipelines.settings.presets import load_preset

    settings = load_preset(preset, changes or (), ("ingest", "split", "train", "register"))
    found = find_learning_rate(
        settings,
        open_store(_absolute(store)),
        (output or _new_folder()).expanduser().absolute(),
        source=_absolute(source) if source else "",
        dataset_id=dataset_id,
    )
    rate = found.learning_rate
    suggestion = "" if rate is None else f"suggested learning rate: {rate:.2g}"
    lines = (suggestion, found.reason, found.scope, f"see {_shown(str(found.report))}")
    print_result(found.model_dump(mode="json"), *filter(None, lines), as_json=as_json)
    if rate is None:
        raise typer.Exit(1)


@app.command(name="compile")
@options.with_options(options.read_images)
def compile_pipelines(
    images: "Images",
    output: Annotated[Path, typer.Option(help="Folder for the YAML files.")] = Path("compiled"),
    profile: options.Profile = defaults.PROFILE,
) -> None:
    """Write pipelines and components as YAML for Kubeflow.

    Example: brainseg compile --profile gpu --registry registry.example/team
    """
    from pipelines.placement.compilation import compile_all
    from pipelines.placement.profiles import load_profile

    for path in compile_all(output.expanduser(), profile=load_profile(profile), images=images):
        print_line(str(path))


presets = typer.Typer(name="presets", invoke_without_command=True)


@presets.callback()
def list_all_presets(context: typer.Context, as_json: options.Json = False) -> None:
    """List the presets with their purpose and scores, or show one.

    Example: brainseg presets show best
    """
    if context.invoked_subcommand:
        return
    from pipelines.settings.presets import list_presets

    found = list_presets()
    width = max(len(each.name) for each in found)
    lines = (f"{one.name:{width}}  {one.purpose}\n{'':{width}}{one.scores}" for one in found)
    print_result([vars(each) for each in found], *lines, as_json=as_json)


@presets.command()
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a preset or a .yaml file."),
    ],
    changes: options.Changes = None,
) -> None:
    """Print every setting of a preset as YAML.

    Example: brainseg presets show quick --set train.schedule.epochs=30
    """
    from pipelines.settings.presets import show_preset

    typer.echo(show_preset(name, changes or ()), nl=False)


app.add_typer(presets)

weights = typer.Typer(
    name="weights",
    help="Fetch pretrained weights into a store, and list them.\n\n"
    "Example: brainseg weights fetch imagenet:resnet34 --store s3://mri/store",
    no_args_is_help=True,
)


@weights.command()
def fetch(
    source: Annotated[
        str,
        typer.Argument(metavar="NAME_OR_URI", help=f"imagenet:ENCODER, {WEIGHTS_FORMS}."),
    ],
    store: options.Store = options.LOCAL_STORE,
    as_json: options.Json = False,
) -> None:
    """Fetch weights into a store, from which training runs read them without a network.

    Weights that were fetched from the same source before are replaced for later training runs.

    Example: brainseg weights fetch imagenet:resnet34 --store s3://mri/store
    """
    require_extras("trainer")
    _use_local_defaults()
    from components.shared.storage.store import open_store
    from components.shared.weights.stored import fetch_weights

    # a relative path is no source: steps run in other folders
    named = str(Path(source).absolute()) if Path(source).exists() else source
    found = fetch_weights(open_store(_absolute(store)), named)
    print_result(found.model_dump(exclude={"config"}), _weights_line(found), as_json=as_json)


@weights.command(name="list")
def list_stored(store: options.Store = options.LOCAL_STORE, as_json: options.Json = False) -> None:
    """List the weights in a store.

    Example: brainseg weights list --store s3://mri/store
    """
    from components.shared.storage.store import open_store
    from components.shared.weights.stored import list_weights

    found = list_weights(open_store(_absolute(store)))
    lines = map(_weights_line, found) if found else (f"no weights in {store}",)
    shown = [one.model_dump(exclude={"config"}) for one in found]
    print_result(shown, *lines, as_json=as_json)


def _weights_line(one: "StoredWeights") -> str:
    return f"{one.sha256}  {one.bytes / 1e6:,.1f} MB  {one.source}"


app.add_typer(weights)


@app.command()
def datasets(store: options.Store = options.LOCAL_STORE, as_json: options.Json = False) -> None:
    """List the data set versions in a store.

    Example: brainseg datasets --store s3://mri/store
    """
    from components.shared.dataset.manifest import list_datasets
    from components.shared.storage.store import open_store

    rows = list_datasets(open_store(_absolute(store)))
    lines = (
        f"{row.dataset_id}  {row.volumes} volumes  {row.slices} slices  "
        f"{row.tumour_slices} with tumour  {', '.join(row.sites)}"
        for row in rows
    )
    shown = lines if rows else (f"no data set in {store}",)
    print_result([row.model_dump() for row in rows], *shown, as_json=as_json)


@app.command()
def gc(
    store: options.Store = options.LOCAL_STORE,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", min=1, help="Minimum age of what is removed.")
    ] = 14,
    delete: Annotated[bool, typer.Option("--delete", help="Remove instead of list.")] = False,
    as_json: options.Json = False,
) -> None:
    """List garbage in a store, or remove it with --delete.

    Garbage is: checkpoints of finished training runs, volumes that no data set uses, results of
    old pipeline runs, and partial files of killed processes. Data sets, fetched weights, running
    training runs and everything younger than --older-than are kept.

    Example: brainseg gc --store s3://mri/store --older-than 30 --delete
    """
    require_extras("trainer")
    from datetime import timedelta

    from components.shared.storage.store import open_store
    from pipelines.gc import find_garbage, remove_garbage

    _use_local_defaults()
    work = remove_garbage if delete else find_garbage
    found = work(open_store(_absolute(store)), timedelta(days=older_than))
    if as_json:
        print_json({"deleted": delete, **found.model_dump(mode="json")})
    else:
        _print_garbage(found, deleted=delete)
    if delete and found.refused:
        raise typer.Exit(1)


@app.command()
def rollback(
    model_name: Annotated[str, typer.Option(help="Name of the registered model.")] = "brainseg",
    as_json: options.Json = False,
) -> None:
    """Move the alias `champion` back to the previous champion.

    Example: brainseg rollback
    """
    require_extras("trainer")
    from components.register.rollback import rollback as roll_back

    _use_local_defaults()
    moved = roll_back(model_name)
    line = f"champion of {model_name}: version {moved.from_version} -> {moved.to_version}"
    print_result({"from": moved.from_version, "to": moved.to_version}, line, as_json=as_json)


@app.command()
def doctor(
    store: options.Store = options.LOCAL_STORE,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Check the cluster of the kubeconfig, not this machine."),
    ] = False,
    namespace: Annotated[str, typer.Option(help="Namespace of pipeline runs.")] = "brainseg",
    profile: options.Profile = defaults.PROFILE,
    registry: options.Registry = "",
    digests: options.Digests = None,
    service_account: Annotated[
        str, typer.Option(help="Service account of the pods.")
    ] = "brainseg-run",
    endpoint: options.Endpoint = "",
    preset: options.Preset = defaults.PRESET,
    deep: Annotated[
        bool, typer.Option("--deep", help="Store a file as large as a model in MLflow, too.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check the installation and the environment, and suggest fixes.

    On this machine: store, MLflow, disk, memory, device, package versions, and the pretrained
    weights of the preset. With --cluster: everything that pipeline runs need there, tried from
    pods like theirs.

    Example: brainseg doctor --cluster --store s3://mri/store --profile gpu
    """
    if cluster and deep:
        raise UserError("--deep is about this machine: leave out --cluster")
    if not cluster and (registry or digests or endpoint):
        raise UserError("--registry, --digests and --endpoint are about a cluster: add --cluster")
    from pipelines.doctor.weights import weights_of_preset

    if cluster:
        images = options.read_images(registry, digests)
        from pipelines.doctor.cluster.checks import run_cluster_checks
        from pipelines.doctor.cluster.target import Target
        from pipelines.placement.profiles import load_profile

        target = Target(
            load_profile(profile),
            images,
            store=_absolute(store),
            namespace=namespace,
            service_account=service_account,
            endpoint=endpoint,
            weights=tuple(weights_of_preset(preset)),
        )
        found = run_cluster_checks(target)
    else:
        from pipelines.doctor.checks import run_checks

        _use_local_defaults()
        found = run_checks(_absolute(store), weights_of_preset(preset), deep=deep)
    print_result([vars(each) for each in found], *_check_lines(found), as_json=as_json)
    if any(check.status == "error" for check in found):
        raise typer.Exit(1)


app.command()(submit)
app.add_typer(schedules)


def main() -> NoReturn:
    """Runs the command line; a user error prints one message and exits with 1."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    write_safely(logging.WARNING, "%(message)s")
    for ours in ("components", "pipelines"):  # others' lines only if they warn
        logging.getLogger(ours).setLevel(logging.INFO)
    # It retries, and its final error is reported; KFP's client sets the level of its parent.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    try:
        adopt_settings()
        app(arguments)
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"error: {printable_lines(str(error))}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _ingest_settings(preset: str, changes: Iterable[str]) -> "IngestSettings":
    from components.ingest.settings import IngestSettings
    from pipelines.settings.presets import load_preset

    return IngestSettings.model_validate(load_preset(preset, changes, ("ingest",))["ingest"])


def _with_layout(
    kind: "type[ConfigT]", name: str, preset: str, changes: Iterable[str] | None
) -> "ConfigT":
    """Settings with a preset's layout and changes."""
    from components.shared.config import build_config
    from pipelines.settings.presets import changed, parse_change

    form = "KEY=VALUE, e.g. device=cpu"
    layout = _ingest_settings(preset, ()).layout
    values: dict[str, Any] = {"layout": layout.model_dump(exclude_unset=True)}
    for change in changes or ():
        key, value = parse_change(change, form)
        values = changed(values, key.split("."), value, change)
    return build_config(kind, values, name)


def _absolute(uri: str) -> str:
    """The absolute form of a local path: steps may run in another folder."""
    return str(Path(uri).expanduser().absolute()) if is_local_path(uri) else uri


def _new_folder() -> Path:
    return _HOME / f"{datetime.now():%Y-%m-%d-%H%M%S}"


def _use_local_defaults() -> None:
    """Uses a local MLflow and cache unless the environment sets others."""
    cache, mlflow = (_HOME.absolute() / name for name in ("cache", "mlflow.db"))
    values = {"BRAINSEG_CACHE": str(cache), "MLFLOW_TRACKING_URI": f"sqlite:///{mlflow}"}
    os.environ.update({name: values[name] for name in values if not os.environ.get(name)})
    sqlite_file(os.environ["MLFLOW_TRACKING_URI"])  # refuses folders that no URI can name


def _outcome_lines(outcome: dict[str, Any]) -> Iterator[str]:
    yield f"{outcome['kind']}: {outcome['reason']}"
    if outcome["headline"]:
        yield outcome["headline"]
    if outcome["mlflow_run_id"]:
        uri = os.environ["MLFLOW_TRACKING_URI"]
        yield f"reports and runs: {_ui_command(uri, outcome['experiment_id'])}"


def _result_lines(result: dict[str, Any]) -> Iterator[str]:
    if "metrics" in result:
        yield _headline(result["metrics"], registered="promoted" in result)
    if "promoted" in result:
        decision = "is the new champion" if result["promoted"] else "is not promoted"
        yield f"model {result['model_uri']} {decision}: {result['reason']}"
    width = max(map(len, result["reports"]), default=0)
    for name, path in result["reports"].items():
        yield f"  {name:{width}} {_shown(path)}"
    if "tracking_uri" in result:
        yield f"compare runs: {_ui_command(result['tracking_uri'], result['experiment_id'])}"


def _headline(metrics: dict[str, float], *, registered: bool) -> str:
    from components.shared.scoring.metrics import interval_in_words

    patients = "the test patients" if registered else "patients unseen by their models"
    return (
        f"patient Dice on {patients}: {metrics['patient_dice_mean']:.3f} "
        f"({interval_in_words(metrics)}; an empty prediction scores "
        f"{metrics['patient_dice_mean_empty_baseline']:.3f})"
    )


def _ui_command(tracking_uri: str, experiment_id: str) -> str:
    from components.shared.tracking.view import VIEW

    # Without the type MLflow's page opens for chat traces; without the view it has no metrics.
    runs = f"#/experiments/{experiment_id}/runs"
    page = f"{runs}?workflowType=machine_learning&viewStateShareKey={VIEW}"
    if tracking_uri.startswith("http"):
        return f"open {tracking_uri.rstrip('/')}/{page} in a browser"
    mlflow = shlex.quote(_shown(str(Path(sys.executable).with_name("mlflow"))))
    # Job execution is for those traces; without it the server starts in half the time.
    return (
        f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {mlflow} ui --backend-store-uri "
        f"{shlex.quote(tracking_uri)}\nthen open http://127.0.0.1:5000/{page}"
    )


def _shown(path: str) -> str:
    """The relative path inside the current folder: it is shorter."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _print_garbage(found: "Findings", *, deleted: bool) -> None:
    for item in found.garbage:
        size = f"{item.bytes / 1e6:,.1f} MB"
        print_line(f"{size:>12}  {item.modified:%Y-%m-%d}  {item.key}  {item.reason}")
    for sentence in (*found.kept, *found.refused):
        print_line(f"kept: {sentence}", err=True)
    total = sum(item.bytes for item in found.garbage) / 1e6
    done = "removed" if deleted else "can be removed"
    hint = "" if deleted or not found.garbage else "; --delete removes it"
    typer.echo(f"{len(found.garbage)} items, {total:,.1f} MB {done}{hint}")


def _check_lines(checks: "list[Check]") -> Iterator[str]:
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{check.status:8} {check.name:{width}} {check.found}"
        if check.advice:
            yield f"{'':8} {'':{width}} -> {check.advice}"
