"""The exported model: whole volume in, probability out."""

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import numpy as np
import torch

from components.shared.dataset.volumes import Probability, Voxels, size_text
from components.shared.errors import UserError
from components.shared.model.archive import BadArchiveError, describe, load_program
from components.shared.model.model_folder import read_model_folder
from components.shared.threads import FastestThreads, limit_threads

MIN_COMPONENT_FRACTION = "min_component_fraction"
"""In the metadata of a model folder, see `decision.find_tumour`."""

_REHEARSED = 4  # slices of a volume, to find the fastest number of threads


class VolumeRefusedError(UserError):
    """The program failed on a volume: by its size, or for want of memory; others may go well.

    Attributes:
        reason: The message without the volume's name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


class Segmenter(Protocol):
    """Predicts a volume; normalization and resizing are inside."""

    @property
    def min_component_fraction(self) -> float:
        """What the mask of a prediction leaves out, see `decision.find_tumour`."""

    def __call__(self, image: Voxels, name: str = "a volume") -> Probability:
        """Predicts one volume.

        Args:
            image: uint8, slices x height x width x 3 (pre-contrast, FLAIR, post-contrast).
            name: The volume's, for messages.

        Returns:
            Tumour probability, float32 in 0..1, slices x height x width.

        Raises:
            VolumeRefusedError: If the program fails on this volume.
            UserError: If it answers with anything else than such probabilities.
        """


class ExportedSegmenter:
    """A segmenter read from an MLflow model folder (`torch.export` program, no pickle).

    Attributes:
        metadata: Of the folder.
        min_component_fraction: As the recipe of the training said; 0 where nothing is said.
    """

    def __init__(
        self, program: torch.nn.Module, device: torch.device, metadata: Mapping[str, object]
    ) -> None:
        self.metadata = metadata
        self.min_component_fraction = _share(metadata.get(MIN_COMPONENT_FRACTION, 0))
        self._program = program
        self._device = device
        self._threads = FastestThreads("predicting", limit_threads())

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return sum(weights.numel() for weights in self._program.parameters())

    def __call__(self, image: Voxels, name: str = "a volume") -> Probability:
        # an exported program refuses a length of 1; the segmenter repeats the outermost slices
        # anyway, so to give it two changes nothing
        repeated = np.repeat(image, 2, axis=0) if len(image) == 1 else image
        probability = self._run(repeated, name)
        _check_probability(probability, repeated, name)
        return probability[: len(image)]

    def _run(self, image: Voxels, name: str) -> Probability:
        # np.array: the exported program wants memory it may own, not a mapped file
        volume = torch.from_numpy(np.array(image)).to(self._device)
        try:
            with torch.inference_mode():
                probability = self._predict(volume) if volume.is_cpu else self._program(volume)
                return cast(Probability, probability.float().cpu().numpy())
        except Exception as error:  # of any kind: the program is from anywhere
            size = size_text(image.shape[:3])
            reason = f"the model cannot take {size} voxels: {describe(error)}"
            raise VolumeRefusedError(name, reason) from error

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
    """Loads a segmenter and never runs code from its folder.

    Args:
        uri: Anything MLflow reads: a model folder, `models:/name@alias`, `runs:/...`.
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UserError: If there is no such model, or its folder holds anything that an exported
            segmenter does not (see `components.shared.model.archive`), or it says a
            `min_component_fraction` that is none.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target = torch.device(pick_device(device))
    try:
        with TemporaryDirectory(prefix="brainseg-model-") as scratch:
            folder = Path(uri)
            if not folder.is_dir():  # MLflow would copy a folder, and what links in it point to
                folder = Path(download_artifacts(artifact_uri=str(uri), dst_path=scratch))
            model = read_model_folder(folder)
            program = load_program(model.program, Path(scratch), target)
    except BadArchiveError as error:
        raise UserError(
            f"model {uri} cannot be loaded: {error}; use a model that the train step of this "
            "project exported"
        ) from error
    except (MlflowException, OSError) as error:
        raise UserError(f"model {uri} cannot be loaded: {error}") from error
    # convolutions take a quarter less time in this layout
    program.to(memory_format=torch.channels_last)
    return ExportedSegmenter(program, target, model.metadata)


def _share(told: object) -> float:
    try:
        share = float(str(told))
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(
            f"the model says that its {MIN_COMPONENT_FRACTION} is {told!r}, not a number in 0..1; "
            "set it in its MLmodel to what it was trained with, or to 0"
        )
    return share


def _check_probability(probability: Probability, image: Voxels, name: str) -> None:
    if probability.shape != image.shape[:3]:
        raise UserError(
            f"{name}: the model gave {probability.shape}, not {image.shape[:3]} (slices, height, "
            "width); it is no segmenter of this project"
        )
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise UserError(
            f"{name}: the model gave values from {low} to {high}, not probabilities in 0..1; "
            "train it again or check what it exports"
        )


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
