"""The exported model: whole volume in, probability out."""

import logging
import os
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from components.shared.dataset.volumes import Probability, Voxels
from components.shared.errors import UserError
from components.shared.threads import FastestThreads, limit_threads

logger = logging.getLogger(__name__)

_REHEARSED = 4  # slices of a volume, to find the fastest number of threads


class Segmenter(Protocol):
    """Predicts a volume; normalisation and resizing are inside."""

    def __call__(self, image: Voxels) -> Probability:
        """Predicts one volume.

        Args:
            image: uint8, slices x height x width x 3 (pre-contrast, FLAIR, post-contrast).

        Returns:
            Tumour probability, float32 in 0..1, slices x height x width.
        """


class ExportedSegmenter:
    """A segmenter read from an MLflow model folder (`torch.export` program, no pickle)."""

    def __init__(self, program: torch.nn.Module, device: torch.device) -> None:
        self._program = program
        self._device = device
        self._threads = FastestThreads("predicting", limit_threads())

    def __call__(self, image: Voxels) -> Probability:
        if len(image) == 1:
            # an exported program refuses a length of 1; the segmenter repeats the outermost
            # slices anyway, so this changes nothing
            return self(np.repeat(image, 2, axis=0))[:1]
        # np.array: the exported program wants memory it may own, not a mapped file
        volume = torch.from_numpy(np.array(image)).to(self._device)
        with torch.inference_mode():
            probability = self._predict(volume) if volume.is_cpu else self._program(volume)
        return cast(Probability, probability.float().cpu().numpy())

    def _predict(self, volume: torch.Tensor) -> torch.Tensor:
        # the number of threads changes no probability by more than its last bit
        before, some = torch.get_num_threads(), volume[:_REHEARSED]
        self._threads.rehearse(lambda: partial(self._program, some))
        started = time.monotonic()
        try:
            return cast(torch.Tensor, self._program(volume))
        finally:
            self._threads.took((time.monotonic() - started) * len(some) / len(volume))
            torch.set_num_threads(before)


def load_segmenter(uri: str | Path, device: str = "auto") -> ExportedSegmenter:
    """Loads a segmenter and never runs code from the archive.

    Args:
        uri: Anything MLflow reads: a model folder, `models:/name@alias`, `runs:/...`.
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UserError: If there is no such model, or its folder could run code.
    """
    # read by MLflow at each load; an archive that could run code is refused
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    import mlflow.artifacts
    import mlflow.pytorch
    from mlflow.exceptions import MlflowException

    target = torch.device(pick_device(device))
    try:
        with TemporaryDirectory(prefix="brainseg-model-") as scratch:
            found = mlflow.artifacts.download_artifacts(artifact_uri=str(uri), dst_path=scratch)
            _refuse_code(Path(found), uri)
            program = mlflow.pytorch.load_model(found)
            if target.type != "cpu":
                program = _load_on(Path(found), target)
    except (MlflowException, OSError) as error:
        raise UserError(f"model {uri} cannot be loaded: {error}") from error
    return ExportedSegmenter(program, target)


def _refuse_code(folder: Path, uri: str | Path) -> None:
    # MLflow imports a folder's own modules before it looks whether a pickle is allowed
    from mlflow.models import Model

    flavor = Model.load(str(folder)).flavors.get("pytorch", {})
    exported = (folder / "data" / "model.pt2").is_file() and flavor.get("model_data") == "data"
    if flavor.get("code") or not exported or (folder / "data" / "model.pth").exists():
        raise UserError(
            f"model {uri} cannot be loaded: it is not one exported program without code or "
            'pickle; save it with serialization_format="pt2" and without code_paths'
        )


def _load_on(folder: Path, device: torch.device) -> torch.nn.Module:
    # MLflow leaves an exported program where it was exported, with its constants
    program = torch.export.load(folder / "data" / "model.pt2")  # checked before
    return move_to_device_pass(program, device).module()


def pick_device(device: str) -> str:
    """Resolves `auto` to `cuda` where a GPU is usable, else to `cpu`.

    Raises:
        UserError: If `cuda` is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("device cuda was asked for but torch sees no GPU; use device=auto or cpu")
    if device == "auto":
        return "cuda" if available else "cpu"
    return device
