"""Writes the trained segmenter as an MLflow model folder, in two forms without pickles.

The folder has the stored form that all steps load (`components.shared.model.model_folder`), and a
`torch.export` archive for `mlflow models serve`, pyfunc and KServe.
"""

import copy
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from components.shared.dataset.channels import LGG_CHANNELS, Channels
from components.shared.dataset.volumes import Probability, Voxels
from components.shared.errors import UserError
from components.shared.model.model_folder import AnySegmenter, write_segmenter
from components.shared.model.network import PairedSegmenter, VolumeSegmenter
from components.shared.model.segmenter import load_segmenter

_TOLERANCE = 1e-4  # of probability, between either stored form and the trained segmenter
_REQUIREMENTS = ("mlflow", "torch", "numpy")  # to load and call the archive


def try_export(segmenter: VolumeSegmenter, place: str) -> None:
    """Exports an untrained segmenter, to find out before training whether it can be exported.

    Args:
        segmenter: Segmenter, which is not changed.
        place: Place of its settings, for the message.

    Raises:
        UserError: If it cannot be exported.
    """
    tried = copy.deepcopy(segmenter).eval()
    with TemporaryDirectory(prefix="brainseg-export-") as folder:
        try:
            export_segmenter(tried, Path(folder, "model"))
        except OSError:  # of the disk
            raise
        except Exception as error:  # torch's exporter fails in many ways
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"{place}: this network could not be exported once it is trained ({reason}); use "
                "another encoder or architecture"
            ) from error


def export_segmenter(segmenter: AnySegmenter, folder: Path) -> float:
    """Writes the model folder and checks that both forms predict what the segmenter predicts.

    Slices, height and width stay free in the archive. Its input example is synthetic.

    Args:
        segmenter: Segmenter in eval mode on the CPU.
        folder: New folder.

    Returns:
        Largest difference between the probabilities.

    Raises:
        RuntimeError: If a stored form disagrees with the segmenter.
        UserError: If the weights hold NaN or infinity.
    """
    # a plain memory layout: the archive takes its strides from the weights
    segmenter.to(memory_format=torch.contiguous_format)
    channels = segmenter.channels
    mlflow.pytorch.save_model(
        segmenter,
        folder,
        serialization_format="pt2",
        signature=_signature(segmenter),
        input_example=synthetic_example(segmenter.image_size, slices=3, channels=channels),
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in _REQUIREMENTS],
        metadata={
            "channels": list(channels.names),
            "reference": channels.reference,
            "targets": [target.name for target in segmenter.targets],
            "orientation": "LPS",
            "context_slices": segmenter.context_slices,
            "min_component_fraction": segmenter.min_component_fraction,
        },
    )
    write_segmenter(segmenter, folder)
    return _check(segmenter, folder)


def synthetic_example(side: int, slices: int, channels: Channels = LGG_CHANNELS) -> Voxels:
    """Returns a synthetic volume: a bright ball in noise, slices x side x side x channels."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    ball = 120 * (rows**2 + columns**2 < 0.16)
    noise = generator.integers(0, 100, (slices, side, side, channels.count))
    image: Voxels = (ball[None, :, :, None] + noise).astype(channels.dtype)
    return image


def _signature(segmenter: AnySegmenter) -> ModelSignature:
    channels, targets = segmenter.channels, len(segmenter.targets)
    shape = (-1, -1, -1) if targets == 1 else (targets, -1, -1, -1)
    # without a name: MLflow makes a dictionary of named inputs, which its flavor pytorch refuses
    image = TensorSpec(np.dtype(channels.dtype), (-1, -1, -1, channels.count))
    probability = TensorSpec(np.dtype("float32"), shape, "probability")
    return ModelSignature(inputs=Schema([image]), outputs=Schema([probability]))


def _check(segmenter: AnySegmenter, folder: Path) -> float:
    targets = len(segmenter.targets)
    stored: dict[str, Callable[[Voxels], Probability]] = {
        "stored segmenter": load_segmenter(folder, device="cpu"),
        "torch.export archive": _callable(mlflow.pytorch.load_model(str(folder)), targets),
    }
    eager = _callable(segmenter, targets)
    largest = 0.0
    for image in _check_images(segmenter):
        expected = eager(image)
        for name, predict in stored.items():
            difference = float(np.abs(predict(image) - expected).max())
            if not difference <= _TOLERANCE:
                raise RuntimeError(f"the {name} differs by {difference} from the trained one")
            largest = max(largest, difference)
    return largest


def _check_images(segmenter: AnySegmenter) -> Iterable[Voxels]:
    # other sizes than the example: these dimensions must be free; the archive refuses 1 or 2 slices
    side, channels = segmenter.image_size, segmenter.channels
    yield synthetic_example(side + 24, slices=5, channels=channels)
    image = synthetic_example(side - 8, slices=4, channels=channels)
    yield image
    if any(
        isinstance(part, PairedSegmenter) for part in segmenter.modules()
    ):  # a scan that lacks sequences
        yield np.repeat(image[..., channels.reference_index, None], channels.count, axis=3)


def _callable(module: torch.nn.Module, targets: int) -> Callable[[Voxels], Probability]:
    def predict(image: Voxels) -> Probability:
        with torch.inference_mode():
            probability: Probability = module(torch.from_numpy(image)).numpy()
            return probability.reshape(targets, *image.shape[:3])

    return predict
