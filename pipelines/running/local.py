"""Local runs of a pipeline: no cluster, no account, and Docker only on request."""

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
from components.shared.tracking.probe import probe
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect
from pipelines.graph import check_arguments, count_steps, images, on_one_machine
from pipelines.running.steplog import StepLog

_Runner: TypeAlias = local.SubprocessRunner | local.DockerRunner

_UNSAFE = "python3"  # KFP's subprocess runner replaces this word inside every argument
_CLUSTER_ONLY = ".*have no effect in the current local runner.*"  # cpu, memory, accelerators


@dataclass(frozen=True)
class LocalRun:
    """A pipeline with its arguments, and the folder for its result, reports and log."""

    pipeline: GraphComponent
    arguments: Mapping[str, Any]
    output: Path
    runner: Literal["subprocess", "docker"] = "subprocess"


def run_locally(run: LocalRun) -> dict[str, Any]:
    """Runs the steps of a pipeline one after the other; writes `result.json` and returns it.

    The result has the pipeline's parameters and metrics by name. `reports` has the copies of its
    files (pages, tables, JSON) by name without `_report`, and `outcome` the record that the steps
    left in the store.

    An interrupted run resumes from its last checkpoint when it is started again with the same
    arguments and output folder.

    Raises:
        UserError: If the arguments do not fit the pipeline, MLflow or Docker cannot be used, or a
            step fails; the message is then the step's.
    """
    check_arguments(run.pipeline, run.arguments)
    if "store" in run.arguments:
        open_store(run.arguments["store"])  # refused here, not by the first step
    if run.runner == "subprocess":
        _refuse_unsafe([*map(str, run.arguments.values()), str(run.output)])
    started = time.monotonic()
    with _locked(run.output), environment(_variables(run)), _runner(run) as runner:
        (run.output / "result.json").unlink(missing_ok=True)
        if TRAINER_IMAGE in images(run.pipeline):  # its steps come after the long ingest
            ensure_local(os.environ.get("MLFLOW_TRACKING_URI", ""))
            probe()
        outputs, seconds = _execute(run, runner)
        result = _collect(outputs, run.output)
        if "store" in run.arguments:
            outcome = read_outcome(open_store(run.arguments["store"]), os.environ["KFP_RUN_ID"])
            if isinstance(outcome, Outcome):
                result["outcome"] = outcome.model_dump(mode="json")
        result["seconds"] = {**seconds, "total": round(time.monotonic() - started, 1)}
        FolderStore(run.output).write("result.json", json.dumps(result, indent=2).encode())
    return result


@contextlib.contextmanager
def _runner(run: LocalRun) -> Iterator[_Runner]:
    if run.runner == "subprocess":
        yield local.SubprocessRunner(use_venv=False)
        return
    # most installations lack Docker's package
    from pipelines.running.containers import docker_runner

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
    """The outputs; a list of files, one per iteration of a loop, becomes numbered outputs."""
    for name, value in outputs.items():
        if isinstance(value, list) and any(isinstance(item, dsl.Artifact) for item in value):
            yield from ((f"{name}_{number}", item) for number, item in enumerate(value, start=1))
        else:
            yield name, value


def _collect(outputs: Mapping[str, Any], output: Path) -> dict[str, Any]:
    files = {
        name: value
        for name, value in outputs.items()
        if isinstance(value, dsl.Artifact) and not isinstance(value, dsl.Metrics)
    }
    result = {name: _value(value) for name, value in outputs.items() if name not in files}
    result["reports"] = {
        name.removesuffix("_report"): _keep(artifact, output / name.removesuffix("_report"))
        for name, artifact in files.items()
        if f"{name}_report" not in files  # a report replaces its data
    }
    if "mlflow_run_id" in outputs:
        result["tracking_uri"] = os.environ["MLFLOW_TRACKING_URI"]
        with explaining():
            run = connect().get_run(outputs["mlflow_run_id"])
        result["experiment_id"] = run.info.experiment_id
    return result


def _value(value: object) -> object:
    if not isinstance(value, dsl.Metrics):
        return value
    # A step may write them as JSON too, where counts stay integers; KFP's copy has floats.
    path = Path(value.path)
    return json.loads(path.read_text()) if path.exists() else value.metadata


def _keep(artifact: dsl.Artifact, target: Path) -> str:
    source = Path(artifact.path)
    if source.is_dir():  # large, and already in the output folder
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
        # a container may reach less than this process, so its step tries MLflow again
        **({"BRAINSEG_SKIP_PROBE": "1"} if run.runner == "subprocess" else {}),
        "BRAINSEG_EXIT_WITH_LAUNCHER": "1",
        "PYTHONUNBUFFERED": "1",  # otherwise a step's lines appear only at its end
    }


def _identity(run: LocalRun) -> str:
    record = FolderStore(run.output)
    content = {"pipeline": run.pipeline.name, "arguments": dict(run.arguments)}
    if record.exists("run.json") and not record.exists("result.json"):
        previous = json.loads(record.read("run.json"))
        if {**previous, **content} == previous:
            return str(previous["pipeline_run"])
    identity = f"local-{uuid.uuid4()}"
    record.write("run.json", json.dumps({"pipeline_run": identity, **content}, indent=2).encode())
    return identity


def _refuse_unsafe(arguments: list[str]) -> None:
    for argument in arguments:
        if _UNSAFE in argument:
            raise UserError(
                f"{argument!r} contains the word {_UNSAFE!r}, which KFP's local runner would "
                "replace; use a path without it, for example a symbolic link"
            )
    if " " in sys.executable:
        raise UserError(
            f"the interpreter's path {sys.executable!r} contains a space, and KFP's local runner "
            "fails with it; create the virtual environment elsewhere"
        )


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    try:
        output.mkdir(parents=True, exist_ok=True)
        stream = open(output / ".lock", "w")  # noqa: SIM115 - stays open while it is locked
    except OSError as error:
        raise UserError(
            f"output folder {output} cannot be written: {error.strerror}; choose another with "
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
