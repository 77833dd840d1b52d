"""Running the training pipeline on this machine: no Docker, no cluster, no account."""

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
from typing import Any

from components.shared.environment import environment
from components.shared.errors import UserError
from components.shared.storage.store import FolderStore
from components.shared.tracking.runs import experiment_id
from pipelines.settings import Preset, pipeline_arguments
from pipelines.steplog import StepLog

_STEPS = 6
_UNSAFE = "python3"  # KFP's local runner replaces this word inside every argument


@dataclass(frozen=True)
class LocalRun:
    """What to run and where its results go.

    Attributes:
        source: Where the volumes come from, see `brainseg run --help`.
        store: URI of the store.
        preset: Settings of all steps.
        output: Folder for the result, the reports and the log.
        name: What the run is called in MLflow, e.g. the preset.
    """

    source: str
    store: str
    preset: Preset
    output: Path
    name: str = ""


def run_locally(run: LocalRun) -> dict[str, Any]:
    """Runs the whole pipeline in subprocesses and writes `result.json`.

    A run that was cut off goes on from its last checkpoint when it is started again with the
    same arguments and output folder.

    Args:
        run: What to run.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: If a step fails; the message is the step's own.
    """
    named = {"source": run.source, "store": run.store, "run_name": run.name}
    arguments = {**named, **pipeline_arguments(run.preset)}
    _refuse_unsafe([*arguments.values(), str(run.output)])
    started = time.monotonic()
    with _locked(run.output), environment(_variables(run, arguments)):
        (run.output / "result.json").unlink(missing_ok=True)
        outputs, seconds = _execute(run, arguments)
        result = _collect(outputs, run.output)
        result["seconds"] = {**seconds, "total": round(time.monotonic() - started, 1)}
        FolderStore(run.output).write("result.json", json.dumps(result, indent=2).encode())
    return result


def _execute(
    run: LocalRun, arguments: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, float]]:
    from kfp import local

    from pipelines.training import training

    # cpu, memory and accelerators are for the cluster
    warnings.filterwarnings("ignore", ".*have no effect in the current local runner.*")
    for task in training.pipeline_spec.root.dag.tasks.values():
        task.ClearField("retry_policy")  # of a cluster; here a mistake would be made thrice
    root = run.output / "pipeline"
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    with StepLog(run.output / "run.log", steps=_STEPS) as log:
        try:
            return dict(training(**arguments).outputs), log.seconds
        except RuntimeError as error:
            raise UserError(log.failure(error)) from error


def _collect(outputs: Mapping[str, Any], output: Path) -> dict[str, Any]:
    named = ("dataset_id", "split_id", "mlflow_run_id", "model_uri", "model_version")
    reports = {
        "profile": _keep(outputs["profile_report"].path, output / "profile.html"),
        "split": _keep(outputs["split"].path, output / "split.json"),
        "evaluation": _keep(outputs["evaluation_report"].path, output / "evaluation.html"),
        "per_patient": _keep(outputs["per_patient"].path, output / "per_patient.csv"),
    }
    return {
        **{name: outputs[name] for name in named},
        "promoted": bool(outputs["promoted"]),
        "reason": outputs["reason"],
        "metrics": json.loads(Path(outputs["metrics"].path).read_text()),
        "reports": reports,
        "tracking_uri": os.environ["MLFLOW_TRACKING_URI"],
        "experiment_id": experiment_id(outputs["mlflow_run_id"]),
    }


def _keep(artifact: str, path: Path) -> str:
    shutil.copyfile(artifact, path)
    return str(path)


def _variables(run: LocalRun, arguments: Mapping[str, str]) -> dict[str, str]:
    return {
        "KFP_RUN_ID": _identity(run.output, arguments),
        "BRAINSEG_EXIT_WITH_LAUNCHER": "1",
        "PYTHONUNBUFFERED": "1",  # else a step's lines are shown only at its end
    }


def _identity(output: Path, arguments: Mapping[str, str]) -> str:
    record = FolderStore(output)
    if record.exists("run.json") and not record.exists("result.json"):
        begun = json.loads(record.read("run.json"))
        if begun["arguments"] == dict(arguments):
            return str(begun["pipeline_run"])
    identity = f"local-{uuid.uuid4()}"
    content = {"pipeline_run": identity, "arguments": dict(arguments)}
    record.write("run.json", json.dumps(content, indent=2).encode())
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
