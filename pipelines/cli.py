"""The `brainseg` command."""

import json
import logging
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from components.shared.environment import adopt_settings
from components.shared.errors import UserError
from components.shared.printable import printable_lines
from components.shared.process import write_safely
from pipelines.extras import require_extras
from pipelines.kubeflow.commands import Digests, Profile, Registry, schedules, submit
from pipelines.settings import defaults

if TYPE_CHECKING:  # imported when a command needs them: `--help` must be quick
    from components.shared.dataset.manifest import DatasetSummary
    from pipelines.doctor.check import Check
    from pipelines.gc import Findings

app = typer.Typer(
    name="brainseg",
    help="Train, score, register and keep retraining a brain-tumour segmentation model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(submit)
app.add_typer(schedules)

_HOME = Path("brainseg-runs")
_SOURCES = (
    "A folder or .zip in the layout of Kaggle's lgg-mri-segmentation, s3://bucket/prefix, "
    "kaggle:owner/dataset, or synthetic:PATIENTS[,seed=N]."
)

_PIPELINES = "training, retraining, cross-validation or comparison."

Source = Annotated[str, typer.Option(help=_SOURCES)]
Store = Annotated[str, typer.Option(help="s3://bucket/prefix or a local folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts on stdout.")]
PresetName = Annotated[str, typer.Option(help="Name or .yaml file of all steps' settings.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.KEY=VALUE", help="Change a setting; repeatable."),
]
DEFAULT_STORE = str(_HOME / "store")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of a mistake.")] = False,
) -> None:
    del debug  # read by main(), wherever it stands on the command line


@app.command()
def run(
    source: Source,
    store: Store = DEFAULT_STORE,
    pipeline: Annotated[str, typer.Option(help=_PIPELINES)] = "training",
    preset: PresetName = defaults.PRESET,
    changes: Changes = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for result.json, reports and the log.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="retraining: train although nothing is new.")
    ] = False,
    runner: Annotated[
        Literal["subprocess", "docker"],
        typer.Option(help="docker: each step in its image, as on a cluster; see `make images`."),
    ] = "subprocess",
    as_json: Json = False,
) -> None:
    """Run the whole chain on this machine: ingest to registered model.

    Example: brainseg run --source ~/lgg/kaggle_3m --preset quick --set train.schedule.epochs=30
    """
    require_extras("trainer", "pipelines")
    from pipelines.catalogue import find_pipeline
    from pipelines.running.local import LocalRun, run_locally
    from pipelines.settings.arguments import graph_arguments

    graph = find_pipeline(pipeline)
    settings = graph_arguments(graph, preset, changes or ())
    _use_local_defaults()
    folder = output or _new_folder()
    named = {"source": _absolute(source), "store": _absolute(store), "run_name": Path(preset).stem}
    arguments = {**named, **({"force": True} if force else {}), **settings}
    result = run_locally(LocalRun(graph, arguments, folder.expanduser().absolute(), runner))
    if as_json:
        _print_json(result)
    elif "metrics" in result:
        _tell_result(result)
    else:  # a graph with an exit handler returns nothing
        _tell_outcome(result["outcome"])


@app.command()
def ingest(
    source: Source,
    store: Store = DEFAULT_STORE,
    strict: Annotated[bool, typer.Option(help="Fail if a volume is quarantined.")] = False,
    as_json: Json = False,
) -> None:
    """Check volumes at the door and publish them as a data set version.

    Example: brainseg ingest --source lgg.zip --store s3://mri/brainseg --json
    """
    from components.ingest.ingestion import ingest_source
    from components.ingest.settings import IngestSettings
    from components.shared.storage.store import open_store

    result = ingest_source(
        _absolute(source), open_store(_absolute(store)), IngestSettings(strict=strict)
    )
    account = result.account.model_dump(mode="json")
    if as_json:
        _print_json(account)
    else:
        _tell(
            f"data set {account['dataset_id']}: {account['volumes']} volumes, "
            f"{account['slices']} slices, {account['tumour_slices']} with tumour"
        )


@app.command()
def predict(
    source: Source,
    output: Annotated[Path, typer.Option(help="Folder for masks, predictions.csv and page.")],
    model: Annotated[
        str, typer.Option(help="`champion`, or models:/..., runs:/... or a model folder.")
    ] = "champion",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment volumes, labelled or not, with a registered model.

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
        _print_json(result.model_dump(mode="json"))
    else:
        _tell(
            f"{result.predicted} volumes predicted, {result.failed} not, with {result.model} at "
            f"threshold {result.threshold:g}; see {output}"
        )


@app.command()
def find_lr(
    source: Annotated[str, typer.Option(help=_SOURCES)] = "",
    dataset_id: Annotated[str, typer.Option(help="Instead of --source: one in the store.")] = "",
    store: Store = DEFAULT_STORE,
    preset: PresetName = defaults.PRESET,
    changes: Changes = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
    as_json: Json = False,
) -> None:
    """Suggest a learning rate for a recipe, by a short mock training on the training patients.

    Example: brainseg find-lr --source lgg.zip --preset quick --set train.network.encoder=resnet34
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
        _print_json(found.model_dump(mode="json"))
    else:
        if found.learning_rate is not None:
            _tell(f"suggested learning rate: {found.learning_rate:.2g}")
        for sentence in filter(None, (found.reason, found.scope)):
            _tell(sentence)
        _tell(f"see {_shown(str(found.report))}")
    if found.learning_rate is None:
        raise typer.Exit(1)


@app.command(name="compile")
def compile_pipelines(
    output: Annotated[Path, typer.Option(help="Folder for the YAML files.")] = Path("compiled"),
    profile: Profile = defaults.PROFILE,
    registry: Registry = "",
    digests: Digests = None,
) -> None:
    """Write the pipelines and every component as YAML for Kubeflow Pipelines.

    Example: brainseg compile --profile gpu --registry registry.example/team
    """
    require_extras("pipelines")
    from pipelines.placement.compilation import compile_all
    from pipelines.placement.images import read_images
    from pipelines.placement.profiles import load_profile

    images = read_images(registry, digests)
    for path in compile_all(output.expanduser(), profile=load_profile(profile), images=images):
        _tell(str(path))


@app.command()
def datasets(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """List the data set versions of a store.

    Example: brainseg datasets --store s3://mri/brainseg
    """
    from components.shared.dataset.manifest import list_datasets
    from components.shared.storage.store import open_store

    rows = list_datasets(open_store(_absolute(store)))
    if as_json:
        _print_json([row.model_dump() for row in rows])
        return
    for line in map(_dataset_line, rows) if rows else [f"no data set in {store}"]:
        _tell(line)


@app.command()
def gc(
    store: Store = DEFAULT_STORE,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", min=1, help="Leave alone what is younger.")
    ] = 14,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else list it.")] = False,
    as_json: Json = False,
) -> None:
    """List, or with --delete remove, what a store holds that nobody needs any more.

    Checkpoints of trainings that have ended, volumes that no data set names, what the steps of
    old pipeline runs told, and files that killed writers left. Never what a data set names, what
    a training uses that goes on, or anything that is young.

    Example: brainseg gc --store s3://mri/brainseg --older-than 30 --delete
    """
    require_extras("trainer")
    from datetime import timedelta

    from components.shared.storage.store import open_store
    from pipelines.gc import find_waste, remove_waste

    _use_local_defaults()
    work = remove_waste if delete else find_waste
    found = work(open_store(_absolute(store)), timedelta(days=older_than))
    if as_json:
        _print_json({"deleted": delete, **found.model_dump(mode="json")})
    else:
        _tell_waste(found, deleted=delete)
    if delete and found.refused:
        raise typer.Exit(1)


@app.command()
def rollback(
    model_name: Annotated[str, typer.Option(help="Name of the registered model.")] = "brainseg",
    as_json: Json = False,
) -> None:
    """Give the alias `champion` back to the version that had it before.

    Example: brainseg rollback
    """
    require_extras("trainer")
    from components.register.rollback import rollback as roll_back

    _use_local_defaults()
    moved = roll_back(model_name)
    if as_json:
        _print_json({"from": moved.from_version, "to": moved.to_version})
    else:
        _tell(f"champion of {model_name}: version {moved.from_version} -> {moved.to_version}")


@app.command()
def doctor(
    store: Store = DEFAULT_STORE,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at the kubeconfig's cluster, not at here.")
    ] = False,
    namespace: Annotated[str, typer.Option(help="Of runs in the cluster.")] = "brainseg",
    profile: Profile = defaults.PROFILE,
    registry: Registry = "",
    digests: Digests = None,
    service_account: Annotated[str, typer.Option(help="Of runs in the cluster.")] = "brainseg-run",
    endpoint: Annotated[
        str, typer.Option(help="Address of Kubeflow Pipelines; by default the cluster's own.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check store, MLflow, disk, memory, device and versions, and say what to mend.

    With --cluster: what runs there need, tried from pods like theirs.

    Example: brainseg doctor --cluster --store s3://mri/brainseg --registry registry.example/team
    """
    if not cluster and (registry or digests or endpoint):
        raise UserError("--registry, --digests and --endpoint are about a cluster: add --cluster")
    if cluster:
        require_extras("pipelines")
        from pipelines.doctor.cluster.checks import run_cluster_checks
        from pipelines.doctor.cluster.target import Target
        from pipelines.placement.images import read_images
        from pipelines.placement.profiles import load_profile

        target = Target(
            load_profile(profile),
            read_images(registry, digests),
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
        _print_json([vars(check) for check in found])
    else:
        _tell_checks(found)
    if any(check.status == "error" for check in found):
        raise typer.Exit(1)


def main() -> NoReturn:
    """Runs the command line; a user's mistake is one message and exit code 1."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    write_safely(logging.WARNING, "%(message)s")
    logging.getLogger("components").setLevel(logging.INFO)  # others' lines only if they warn
    # it tries again, and the end of it is told; KFP's client sets the level of its parent
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
    """Local paths by their absolute form: steps may run in another folder."""
    if "://" in uri or uri.startswith(("kaggle:", "synthetic:")):
        return uri
    return str(Path(uri).expanduser().absolute())


def _new_folder() -> Path:
    return _HOME / f"{datetime.now():%Y-%m-%d-%H%M%S}"


def _use_local_defaults() -> None:
    """Points to a local MLflow and cache where the environment names no others."""
    home = _HOME.absolute()
    if not os.environ.get("BRAINSEG_CACHE"):
        os.environ["BRAINSEG_CACHE"] = str(home / "cache")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home / 'mlflow.db'}"


def _tell(text: str) -> None:
    """Prints what may hold words from outside: names, paths, a server's answer."""
    typer.echo(printable_lines(text))


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _tell_outcome(outcome: dict[str, Any]) -> None:
    typer.echo()
    for line in (f"{outcome['kind']}: {outcome['reason']}", outcome["headline"]):
        if line:
            _tell(line)
    if outcome["mlflow_run_id"]:
        uri = os.environ["MLFLOW_TRACKING_URI"]
        _tell(f"reports and runs: {_ui_command(uri, outcome['experiment_id'])}")


def _tell_result(result: dict[str, Any]) -> None:
    from components.shared.scoring.metrics import interval_in_words

    metrics = result["metrics"]
    whom = "the test patients" if "promoted" in result else "patients unseen by their models"
    typer.echo()
    _tell(
        f"patient Dice on {whom}: {metrics['patient_dice_mean']:.3f} "
        f"({interval_in_words(metrics)}; an empty prediction scores "
        f"{metrics['patient_dice_mean_empty_baseline']:.3f})"
    )
    if "promoted" in result:  # a cross-validation registers nothing
        decision = "is the new champion" if result["promoted"] else "is not promoted"
        _tell(f"model {result['model_uri']} {decision}: {result['reason']}")
    width = max(map(len, result["reports"]), default=0)
    for name, path in result["reports"].items():
        _tell(f"  {name:{width}} {_shown(path)}")
    _tell(f"compare runs: {_ui_command(result['tracking_uri'], result['experiment_id'])}")


def _ui_command(tracking_uri: str, experiment_id: str) -> str:
    from components.shared.tracking.view import VIEW

    # without the type MLflow opens for chat traces, without the view there are no metrics
    runs = f"#/experiments/{experiment_id}/runs"
    page = f"{runs}?workflowType=machine_learning&viewStateShareKey={VIEW}"
    if tracking_uri.startswith("http"):
        return f"open {tracking_uri.rstrip('/')}/{page} in a browser"
    mlflow = shlex.quote(_shown(str(Path(sys.executable).with_name("mlflow"))))
    # without job execution, which is for those traces, it starts in half of the time
    return (
        f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {mlflow} ui --backend-store-uri "
        f"{shlex.quote(tracking_uri)}\nthen open http://127.0.0.1:5000/{page}"
    )


def _shown(path: str) -> str:
    """Relative where that is shorter to read."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _dataset_line(row: "DatasetSummary") -> str:
    return (
        f"{row.dataset_id}  {row.volumes} volumes  {row.slices} slices  "
        f"{row.tumour_slices} with tumour  {', '.join(row.sites)}"
    )


def _tell_waste(found: "Findings", *, deleted: bool) -> None:
    for waste in found.waste:
        size = f"{waste.bytes / 1e6:,.1f} MB"
        _tell(f"{size:>12}  {waste.modified:%Y-%m-%d}  {waste.key}  {waste.reason}")
    for sentence in (*found.kept, *found.refused):
        typer.echo(printable_lines(f"left alone: {sentence}"), err=True)
    total = sum(waste.bytes for waste in found.waste) / 1e6
    done = "removed" if deleted else "can be removed"
    hint = "" if deleted or not found.waste else "; --delete removes it"
    typer.echo(f"{len(found.waste)} things, {total:,.1f} MB {done}{hint}")


def _tell_checks(checks: "list[Check]") -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        _tell(f"{check.status:8} {check.name:{width}} {check.found}")
        if check.advice:
            _tell(f"{'':8} {'':{width}} -> {check.advice}")
