"""The exported model: whole volume in, probability out."""

import logging
import os
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from components.shared.errors import UserError
from components.shared.volumes import Voxels

logger = logging.getLogger(__name__)

Probability = npt.NDArray[np.float32]


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

    def __call__(self, image: Voxels) -> Probability:
        # np.array: the exported program wants memory it may own, not a mapped file
        volume = torch.from_numpy(np.array(image)).to(self._device)
        with torch.inference_mode():
            probability = self._program(volume)
        return cast(Probability, probability.float().cpu().numpy())


def load_segmenter(uri: str | Path, device: str = "auto") -> ExportedSegmenter:
    """Loads a segmenter and never runs code from the archive.

    Args:
        uri: Anything MLflow reads: a model folder, `models:/name@alias`, `runs:/...`.
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UserError: If there is no such model or its archive is not pickle-free.
    """
    # read by MLflow at each load; an archive that could run code is refused
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    import mlflow.pytorch
    from mlflow.exceptions import MlflowException

    target = torch.device(pick_device(device))
    try:
        program = mlflow.pytorch.load_model(str(uri), map_location=target)
    except (MlflowException, OSError) as error:
        raise UserError(f"model {uri} cannot be loaded: {error}") from error
    return ExportedSegmenter(program, target)


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
