"""Compilation of the pipelines and components to Kubeflow's YAML."""

from pathlib import Path

from kfp import compiler

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.predict.component import predict
from components.profile.component import profile
from components.register.component import register
from components.shared.errors import UserError
from components.split.component import split
from components.train.component import train
from pipelines.training import training

PIPELINES = {"training": training}
COMPONENTS = {
    "ingest": ingest,
    "profile": profile,
    "split": split,
    "train": train,
    "evaluate": evaluate,
    "register": register,
    "predict": predict,
}


def compile_all(folder: Path) -> list[Path]:
    """Writes `PIPELINE.yaml` and `components/STEP.yaml` and returns the paths.

    Raises:
        UserError: If the folder cannot be written.
    """
    targets = {folder / f"{name}.yaml": graph for name, graph in PIPELINES.items()}
    targets |= {folder / "components" / f"{name}.yaml": step for name, step in COMPONENTS.items()}
    try:
        (folder / "components").mkdir(parents=True, exist_ok=True)
        for path, graph in targets.items():
            compiler.Compiler().compile(graph, str(path))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return list(targets)
