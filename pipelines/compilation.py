"""Compilation of the pipelines and components to Kubeflow's YAML."""

from collections.abc import Mapping
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components.detect.component import detect
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.notify.component import notify
from components.predict.component import predict
from components.profile.component import profile
from components.register.component import register
from components.shared.errors import UserError
from components.split.component import split
from components.train.component import train
from pipelines.retraining import retraining
from pipelines.training import training

PIPELINES: Mapping[str, BaseComponent] = {"training": training, "retraining": retraining}
COMPONENTS: Mapping[str, BaseComponent] = {
    "ingest": ingest,
    "detect": detect,
    "profile": profile,
    "split": split,
    "train": train,
    "evaluate": evaluate,
    "register": register,
    "predict": predict,
    "notify": notify,
}


def find_pipeline(name: str) -> BaseComponent:
    """A pipeline by its short name.

    Raises:
        UserError: If there is none of this name.
    """
    try:
        return PIPELINES[name]
    except KeyError as error:
        raise UserError(f"no pipeline {name!r}; there are {', '.join(PIPELINES)}") from error


def compile_all(folder: Path, pipelines: Mapping[str, BaseComponent] = PIPELINES) -> list[Path]:
    """Writes `PIPELINE.yaml` and `components/STEP.yaml` and returns the paths.

    Args:
        folder: Where to write; made where it is not there.
        pipelines: The graphs by the names of their files.

    Raises:
        UserError: If the folder cannot be written.
    """
    targets = {folder / f"{name}.yaml": graph for name, graph in pipelines.items()}
    targets |= {folder / "components" / f"{name}.yaml": step for name, step in COMPONENTS.items()}
    try:
        (folder / "components").mkdir(parents=True, exist_ok=True)
        for path, graph in targets.items():
            compiler.Compiler().compile(graph, str(path))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return list(targets)
