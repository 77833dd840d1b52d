"""Running a graph on this machine: no cluster, no account, and no Docker unless it is asked for."""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kfp import dsl, local
from kfp.dsl.graph_component import GraphComponent

from components.shared.environment import environment
from components.shared.errors import UserError
from components.shared.step import TRAINER_IMAGE
from components.shared.storage.outcome import Outcome, read_outcome
from components.shared.storage.store import FolderStore, open_store
from components.shared.tracking.local import ensure_local
from components.shared.tracking.runs import experiment_id
from components.shared.tracking.server import connect, open_experiment
from pipelines.graph import check_arguments, count_steps, images, on_one_machine
from pipelines.running.steplog import StepLog

_Runner: TypeAlias = local.SubprocessRunner | local.DockerRunner

_UNSAFE = "python3"  # KFP's runner of subprocesses replaces this word inside every argument
_CLUSTER_ONLY = ".*have no effect in the current local runner.*"  # cpu, memory, accelerators


@dataclass(frozen=True)
class LocalRun:
    """What to run and where its results go.

    Attributes:
        pipeline: Any `@dsl.pipeline`; it is not changed.
        arguments: Values of its parameters.
        output: Folder for the result, the reports and the log.
        runner: What a step runs in: a process of this installation, or a container of its image.
    """

    pipeline: GraphComponent
    arguments: Mapping[str, Any]
    output: Path
    runner: Literal["subprocess", "docker"] = "subprocess"


def run_locally(run: LocalRun) -> dict[str, Any]:
    """Runs a pipeline's steps one after the other and writes `result.json`.

    The result holds what the pipeline returns: parameters and metrics by their names, and
    under `reports` the copies of its files, pages and tables and JSON alike, each by its name
    without `_report`; and under `outcome` what the steps left in the store about the run.

    A run that was cut off goes on from its last checkpoint when it is started again with the
    same arguments and output folder.

    Args:
        run: What to run.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: If the arguments are not the pipeline's, MLflow or Docker cannot be used, or a
            step fails; the message is then the step's own.
    """
    check_arguments(run.pipeline, run.arguments)
    if run.runner == "subprocess":
        _refuse_unsafe([*map(str, run.arguments.values()), str(run.output)])
    started = time.monotonic()
    with _locked(run.output), environment(_variables(run)), _runner(run) as runner:
        (run.output / "result.json").unlink(missing_ok=True)
        if TRAINER_IMAGE in images(run.pipeline):
            _try_mlflow()
        outputs, seconds = _execute(run, runner)
        result = _collect(outputs, run.output)
        result |= _outcome(run, os.environ["KFP_RUN_ID"])
        result["seconds"] = {**seconds, "total": round(time.monotonic() - started, 1)}
        FolderStore(run.output).write("result.json", json.dumps(result, indent=2).encode())
    return result


def _try_mlflow() -> None:
    """Before the first step: its steps come after the long reading of data."""
    ensure_local(os.environ.get("MLFLOW_TRACKING_URI", ""))
    open_experiment(connect())


@contextlib.contextmanager
def _runner(run: LocalRun) -> Iterator[_Runner]:
    if run.runner == "subprocess":
        yield local.SubprocessRunner(use_venv=False)
        return
    from pipelines.running.containers import docker_runner  # most runs do without Docker's package

    with docker_runner(images(run.pipeline), run.arguments, run.output) as runner:
        yield runner


def _execute(run: LocalRun, runner: _Runner) -> tuple[dict[str, Any], dict[str, float]]:
    pipeline = on_one_machine(run.pipeline)
    local.init(runner, pipeline_root=str(run.output / "pipeline"))
    with StepLog(run.output / "run.log", steps=count_steps(pipeline)) as log:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", _CLUSTER_ONLY)
                found = pipeline(**run.arguments).outputs
        except RuntimeError as error:
            raise UserError(log.failure(error)) from error
    declared = run.pipeline.component_spec.outputs or {}
    return dict(_numbered({name: found[name] for name in declared})), log.seconds


def _numbered(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The outputs, a list of files (one a round of a loop) as that many outputs."""
    for name, value in outputs.items():
        if isinstance(value, list) and any(isinstance(item, dsl.Artifact) for item in value):
            yield from ((f"{name}_{number}", item) for number, item in enumerate(value, start=1))
        else:
            yield name, value


def _collect(outputs: Mapping[str, Any], output: Path) -> dict[str, Any]:
    files = {name: value for name, value in outputs.items() if _is_file(value)}
    result = {name: _value(value) for name, value in outputs.items() if name not in files}
    result["reports"] = _keep_files(files, output)
    if "mlflow_run_id" in outputs:
        result["tracking_uri"] = os.environ["MLFLOW_TRACKING_URI"]
        result["experiment_id"] = experiment_id(outputs["mlflow_run_id"])
    return result


def _outcome(run: LocalRun, pipeline_run: str) -> dict[str, Any]:
    if "store" not in run.arguments:
        return {}
    found = read_outcome(open_store(run.arguments["store"]), pipeline_run)
    return {"outcome": found.model_dump(mode="json")} if isinstance(found, Outcome) else {}


def _is_file(value: object) -> bool:
    return isinstance(value, dsl.Artifact) and not isinstance(value, dsl.Metrics)


def _value(value: object) -> object:
    if not isinstance(value, dsl.Metrics):
        return value
    # a step may write them as JSON too, in which counts are no floats as in KFP's copy
    path = Path(value.path)
    return json.loads(path.read_text()) if path.exists() else value.metadata


def _keep_files(artifacts: Mapping[str, dsl.Artifact], output: Path) -> dict[str, str]:
    kept = {}
    for name, artifact in artifacts.items():
        short = name.removesuffix("_report")
        if short != name or f"{name}_report" not in artifacts:  # a page goes before its data
            kept[short] = _keep(artifact, output / short)
    return kept


def _keep(artifact: dsl.Artifact, target: Path) -> str:
    source = Path(artifact.path)
    if source.is_dir():  # it may be large, and is in the output folder already
        return str(source)
    target = target.with_name(target.name + _suffix(artifact))
    shutil.copyfile(source, target)
    return str(target)


def _suffix(artifact: dsl.Artifact) -> str:
    if isinstance(artifact, dsl.HTML):
        return ".html"
    with open(artifact.path, "rb") as stream:
        begin = stream.read(1)
    if begin in (b"{", b"["):
        return ".json"
    return ".csv" if isinstance(artifact, dsl.Dataset) else ""


def _variables(run: LocalRun) -> dict[str, str]:
    return {
        "KFP_RUN_ID": _identity(run),
        "BRAINSEG_EXIT_WITH_LAUNCHER": "1",
        "PYTHONUNBUFFERED": "1",  # else a step's lines are shown only at its end
    }


def _identity(run: LocalRun) -> str:
    record = FolderStore(run.output)
    content = {"pipeline": run.pipeline.name, "arguments": dict(run.arguments)}
    if record.exists("run.json") and not record.exists("result.json"):
        begun = json.loads(record.read("run.json"))
        if {**begun, **content} == begun:
            return str(begun["pipeline_run"])
    identity = f"local-{uuid.uuid4()}"
    record.write("run.json", json.dumps({"pipeline_run": identity, **content}, indent=2).encode())
    return identity


def _refuse_unsafe(arguments: list[str]) -> None:
    for argument in arguments:
        if _UNSAFE in argument:
            raise UserError(
                f"{argument!r} holds the word {_UNSAFE!r}, which KFP's local runner would "
                "replace; use a path without it (a symbolic link will do)"
            )
    if " " in sys.executable:
        raise UserError(
            f"the interpreter's path {sys.executable!r} has a space, with which KFP's local "
            "runner fails; make the virtual environment elsewhere"
        )


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    try:
        output.mkdir(parents=True, exist_ok=True)
        stream = open(output / ".lock", "w")  # noqa: SIM115 - held open while it is locked
    except OSError as error:
        raise UserError(
            f"output folder {output} cannot be written: {error.strerror}; choose another by "
            "--output"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another run is writing to {output}; wait for it or choose another --output"
            ) from error
        yield
