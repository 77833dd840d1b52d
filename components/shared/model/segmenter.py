"""Stored segmenters for prediction: whole volume in, probability out."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import numpy as np
import torch

from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.gray import gray_levels
from components.shared.dataset.volumes import Probability, Voxels, size_text
from components.shared.errors import UserError
from components.shared.model.model_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AnySegmenter,
    BadModelError,
    other_schema,
    read_segmenter,
    shown,
)
from components.shared.threads import FastestThreads, limit_threads

_REHEARSED = 4  # slices of a volume, to find the fastest number of threads


class VolumeRefusedError(UserError):
    """The model failed on one volume, by its size or for lack of memory; others may succeed.

    Attributes:
        reason: Message without the volume's name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


class ChannelsDifferError(UserError):
    """The model was trained on other channels than a volume has.

    Attributes:
        reason: Message without the volume's name.
    """

    def __init__(self, name: str, given: Channels, expected: Channels) -> None:
        self.reason = (
            f"the model expects the channels {', '.join(expected.names)} in this order, not "
            f"{', '.join(given.names)}; declare them by these names, or use a model that was "
            "trained on such volumes"
        )
        super().__init__(f"{name}: {self.reason}")


class Segmenter(Protocol):
    """Predicts a volume; normalization and resizing are inside."""

    @property
    def min_component_fraction(self) -> float:
        """Size of the components that masks leave out, see `decision.find_tumour`."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the model finds, in the order of its probabilities."""

    def __call__(
        self, image: Voxels, name: str = "a volume", channels: Channels | None = None
    ) -> Probability:
        """Predicts one volume.

        Args:
            image: uint8, int16 or float32, slices x height x width x channels.
            name: Name of the volume, for messages.
            channels: Channels of the image; `None` if they are those of the model.

        Returns:
            Probability of each target, float32 in 0..1, targets x slices x height x width.

        Raises:
            ChannelsDifferError: If the model was trained on other channels.
            VolumeRefusedError: If the model fails on this volume.
            UserError: If it returns anything else than such probabilities.
        """


class StoredSegmenter:
    """Segmenter from a model folder.

    Attributes:
        min_component_fraction: Value of the recipe that the model was trained with.
        threshold: Decision threshold of the folder; `None` if it has none.
        channels: Channels of the volumes that the model was trained on.
        targets: What the model finds.
    """

    def __init__(
        self, module: AnySegmenter, device: torch.device, threshold: float | None = None
    ) -> None:
        self.min_component_fraction = module.min_component_fraction
        self.threshold = threshold
        self.channels = module.channels
        self.targets = module.targets
        self._module = module
        self._device = device
        self._threads = FastestThreads("predicting", limit_threads())

    @property
    def parameters(self) -> int:
        """Number of weights of the network."""
        return sum(weights.numel() for weights in self._module.parameters())

    def __call__(
        self, image: Voxels, name: str = "a volume", channels: Channels | None = None
    ) -> Probability:
        """Predicts one volume, see `Segmenter`."""
        if channels is not None and channels.names != self.channels.names:
            raise ChannelsDifferError(name, channels, self.channels)
        probability = self._run(image, name)
        _check_probability(probability, image, len(self.targets), name)
        return probability if len(self.targets) > 1 else probability[None]

    def _run(self, image: Voxels, name: str) -> Probability:
        volume = torch.from_numpy(self._in_its_type(image)).to(self._device)
        try:
            with torch.inference_mode():
                probability = self._predict(volume) if volume.is_cpu else self._module(volume)
                return cast(Probability, probability.float().cpu().numpy())
        except Exception as error:  # of any kind: the network may be the user's
            size, problem = size_text(image.shape[:3]), f"{type(error).__name__}: {error}"
            reason = f"the model cannot take {size} voxels: {shown(problem.splitlines()[0])[1:-1]}"
            raise VolumeRefusedError(name, reason) from error

    def _in_its_type(self, image: Voxels) -> Voxels:
        # always a copy: torch warns of memory that cannot be written, such as a mapped file
        if self.channels.dtype == "float32":
            return np.array(image, np.float32)
        return np.array(image if image.dtype == np.uint8 else gray_levels(image).round(), np.uint8)

    def _predict(self, volume: torch.Tensor) -> torch.Tensor:
        # the number of threads changes no probability by more than its last bit
        before = torch.get_num_threads()
        self._threads.rehearse(lambda: partial(self._module, volume[:_REHEARSED]))
        try:
            return cast(torch.Tensor, self._module(volume))
        finally:
            torch.set_num_threads(before)


def load_segmenter(uri: str | Path, device: str = "auto") -> StoredSegmenter:
    """Loads a segmenter without running code from its folder.

    Only the two files of the stored form are downloaded, see `model_folder`.

    Args:
        uri: Model folder, or a URI of MLflow such as `models:/name@alias` or `runs:/...`.
        device: `cpu`, `cuda` or `auto` (CUDA if there is a GPU).

    Raises:
        UserError: If there is no such model, or it is no segmenter of a known schema version.
    """
    from mlflow.exceptions import MlflowException

    target = torch.device(pick_device(device))
    try:
        with TemporaryDirectory(prefix="brainseg-model-") as scratch:
            module, config = read_segmenter(*find_files(uri, scratch))
    except BadModelError as error:
        raise UserError(f"model {uri} cannot be loaded: {error}") from error
    except (MlflowException, OSError) as error:
        raise UserError(f"model {uri} cannot be loaded: {error}") from error
    # convolutions are a quarter faster in this memory layout
    placed = module.to(target).to(memory_format=torch.channels_last)
    return StoredSegmenter(placed, target, config.threshold)


def find_files(uri: str | Path, scratch: str) -> tuple[Path, Path]:
    """Returns the two files of a stored segmenter, downloaded to a folder if they are not local.

    Raises:
        BadModelError: If the model has no stored form.
        MlflowException, OSError: If there is no such model.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if Path(uri).is_dir():
        config, weights, description = (
            Path(uri, name) for name in (CONFIG_FILE, WEIGHTS_FILE, "MLmodel")
        )
        if description.exists() and not config.exists():
            raise _archive_only()
        return config, weights
    download = partial(get_artifact_repository(str(uri)).download_artifacts, dst_path=scratch)
    try:
        config = download(CONFIG_FILE)
    except (MlflowException, OSError):
        download("MLmodel")  # fails if there is no model at all
        raise _archive_only() from None
    return Path(config), Path(download(WEIGHTS_FILE))


def _archive_only() -> BadModelError:
    return other_schema("no config.json: only a torch.export archive (of brainseg 0.1.0)")


def _check_probability(probability: Probability, image: Voxels, targets: int, name: str) -> None:
    axes, shape = "slices, height, width", image.shape[:3]
    if targets > 1:
        axes, shape = f"targets, {axes}", (targets, *shape)
    if probability.shape != shape:
        raise UserError(
            f"{name}: the model returned {probability.shape}, not {shape} ({axes}); check its "
            "network"
        )
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise UserError(
            f"{name}: the model returned values from {low} to {high}, not probabilities in 0..1; "
            "train it again"
        )


def pick_device(device: str) -> str:
    """Resolves `auto` to `cuda` if a GPU is usable, else to `cpu`.

    Raises:
        UserError: If `cuda` is requested and there is no GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("device=cuda was requested but torch sees no GPU; use device=auto or cpu")
    if device == "auto":
        return "cuda" if available else "cpu"
    return device
