"""The `brainseg` command."""

import logging
import os
import shlex
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from components.shared.environment import adopt_settings
from components.shared.errors import UserError
from components.shared.printable import printable_lines
from components.shared.process import write_safely
from components.shared.reading.sources.opening import is_local_path
from pipelines import options
from pipelines.extras import DISTRIBUTION, require_extras
from pipelines.kubeflow.commands import schedules, submit
from pipelines.settings import defaults
from pipelines.terminal import print_json, print_line

if TYPE_CHECKING:  # imported by the commands that need them: `--help` must be quick
    from components.shared.dataset.manifest import DatasetSummary
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
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for result.json, reports and log (default: a new one)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train even without new data (retraining only).")
    ] = False,
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
    from pipelines.catalogue import find_pipeline
    from pipelines.running.local import LocalRun, run_locally
    from pipelines.settings.arguments import graph_arguments

    graph = find_pipeline(pipeline)
    settings = graph_arguments(graph, preset, changes or ())
    _use_local_defaults()
    folder = output or _new_folder()
    arguments = {
        "source": _absolute(source),
        "store": _absolute(store),
        **({"force": True} if force else {}),
        **settings,
    }
    result = run_locally(LocalRun(graph, arguments, folder.expanduser().absolute(), runner))
    if as_json:
        print_json(result)
    elif "outcome" in result and "metrics" not in result:  # as with an exit handler
        _print_outcome(result["outcome"])
    else:
        _print_result(result)


@app.command()
def ingest(
    source: options.Source,
    store: options.Store = options.LOCAL_STORE,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a volume is quarantined.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Validate volumes and publish them as a data set version.

    Example: brainseg ingest --source lgg.zip --store s3://mri/store --json
    """
    from components.ingest.ingestion import ingest_source
    from components.ingest.settings import IngestSettings
    from components.shared.storage.store import open_store

    result = ingest_source(
        _absolute(source), open_store(_absolute(store)), IngestSettings(strict=strict)
    )
    account = result.account.model_dump(mode="json")
    if as_json:
        print_json(account)
    else:
        print_line(
            f"data set {account['dataset_id']}: {account['volumes']} volumes, "
            f"{account['slices']} slices, {account['tumour_slices']} with tumour"
        )


@app.command()
def predict(
    source: options.Source,
    output: Annotated[Path, typer.Option(help="Folder for masks, predictions.csv and the report.")],
    model: Annotated[
        str, typer.Option(help="champion, a URI (models:/..., runs:/...) or a model folder.")
    ] = "champion",
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
    from components.predict.prediction import predict_source
    from components.predict.settings import PredictSettings
    from components.shared.config import build_config
    from pipelines.settings.presets import parse_change

    form = "KEY=VALUE, e.g. device=cpu"
    values = dict(parse_change(change, form) for change in changes or ())
    settings = build_config(PredictSettings, values, "predict")
    _use_local_defaults()
    result = predict_source(model, _absolute(source), output.expanduser(), settings)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_line(
            f"{result.predicted} volumes predicted, {result.failed} not, with {result.model} at "
            f"threshold {result.threshold:g}; see {output}"
        )


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
    from components.shared.storage.store import open_store
    from pipelines.learning_rate import find_learning_rate
    from pipelines.settings.presets import load_preset

    settings = load_preset(preset, changes or (), ("ingest", "split", "train"))
    _use_local_defaults()
    found = find_learning_rate(
        settings,
        open_store(_absolute(store)),
        (output or _new_folder()).expanduser().absolute(),
        source=_absolute(source) if source else "",
        dataset_id=dataset_id,
    )
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        if found.learning_rate is not None:
            print_line(f"suggested learning rate: {found.learning_rate:.2g}")
        for sentence in filter(None, (found.reason, found.scope)):
            print_line(sentence)
        print_line(f"see {_shown(str(found.report))}")
    if found.learning_rate is None:
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
    if as_json:
        print_json([vars(each) for each in found])
        return
    width = max(len(each.name) for each in found)
    for each in found:
        print_line(f"{each.name:{width}}  {each.purpose}")
        print_line(f"{'':{width}}  {each.scores}")


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


@app.command()
def datasets(store: options.Store = options.LOCAL_STORE, as_json: options.Json = False) -> None:
    """List the data set versions in a store.

    Example: brainseg datasets --store s3://mri/store
    """
    from components.shared.dataset.manifest import list_datasets
    from components.shared.storage.store import open_store

    rows = list_datasets(open_store(_absolute(store)))
    if as_json:
        print_json([row.model_dump() for row in rows])
        return
    for line in map(_dataset_line, rows) if rows else [f"no data set in {store}"]:
        print_line(line)


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
    old pipeline runs, and partial files of killed processes. Data sets, running training runs and
    everything younger than --older-than are kept.

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
    if as_json:
        print_json({"from": moved.from_version, "to": moved.to_version})
    else:
        print_line(f"champion of {model_name}: version {moved.from_version} -> {moved.to_version}")


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
    as_json: options.Json = False,
) -> None:
    """Check the installation and the environment, and suggest fixes.

    On this machine: store, MLflow, disk, memory, device and package versions. With --cluster:
    everything that pipeline runs need there, tried from pods like theirs.

    Example: brainseg doctor --cluster --store s3://mri/store --profile gpu
    """
    if not cluster and (registry or digests or endpoint):
        raise UserError("--registry, --digests and --endpoint are about a cluster: add --cluster")
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
        )
        found = run_cluster_checks(target)
    else:
        from pipelines.doctor.checks import run_checks

        _use_local_defaults()
        found = run_checks(_absolute(store))
    if as_json:
        print_json([vars(check) for check in found])
    else:
        _print_checks(found)
    if any(check.status == "error" for check in found):
        raise typer.Exit(1)


app.command()(submit)
app.add_typer(schedules)


def main() -> NoReturn:
    """Runs the command line; a user error prints one message and exits with 1."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    write_safely(logging.WARNING, "%(message)s")
    logging.getLogger("components").setLevel(logging.INFO)  # others' lines only if they warn
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


def _absolute(uri: str) -> str:
    """The absolute form of a local path: steps may run in another folder."""
    return str(Path(uri).expanduser().absolute()) if is_local_path(uri) else uri


def _new_folder() -> Path:
    return _HOME / f"{datetime.now():%Y-%m-%d-%H%M%S}"


def _use_local_defaults() -> None:
    """Uses a local MLflow and cache unless the environment sets others."""
    home = _HOME.absolute()
    if not os.environ.get("BRAINSEG_CACHE"):
        os.environ["BRAINSEG_CACHE"] = str(home / "cache")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home / 'mlflow.db'}"


def _print_outcome(outcome: dict[str, Any]) -> None:
    typer.echo()
    for line in (f"{outcome['kind']}: {outcome['reason']}", outcome["headline"]):
        if line:
            print_line(line)
    if outcome["mlflow_run_id"]:
        uri = os.environ["MLFLOW_TRACKING_URI"]
        print_line(f"reports and runs: {_ui_command(uri, outcome['experiment_id'])}")


def _print_result(result: dict[str, Any]) -> None:
    typer.echo()
    if "metrics" in result:
        print_line(_headline(result["metrics"], registered="promoted" in result))
    if "promoted" in result:
        decision = "is the new champion" if result["promoted"] else "is not promoted"
        print_line(f"model {result['model_uri']} {decision}: {result['reason']}")
    width = max(map(len, result["reports"]), default=0)
    for name, path in result["reports"].items():
        print_line(f"  {name:{width}} {_shown(path)}")
    if "tracking_uri" in result:
        print_line(f"compare runs: {_ui_command(result['tracking_uri'], result['experiment_id'])}")


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


def _dataset_line(row: "DatasetSummary") -> str:
    return (
        f"{row.dataset_id}  {row.volumes} volumes  {row.slices} slices  "
        f"{row.tumour_slices} with tumour  {', '.join(row.sites)}"
    )


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


def _print_checks(checks: "list[Check]") -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        print_line(f"{check.status:8} {check.name:{width}} {check.found}")
        if check.advice:
            print_line(f"{'':8} {'':{width}} -> {check.advice}")
