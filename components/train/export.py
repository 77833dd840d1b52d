"""The trained segmenter as an MLflow model folder: a `torch.export` program, no pickle."""

import copy
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from components.shared.dataset.volumes import CHANNELS, Voxels
from components.shared.errors import UserError
from components.shared.model.network import PairedSegmenter, VolumeSegmenter
from components.shared.model.segmenter import (
    MIN_COMPONENT_FRACTION,
    Segmenter,
    load_segmenter,
)

ExportableSegmenter = VolumeSegmenter | PairedSegmenter

_TOLERANCE = 1e-4  # of probability, between the exported program and eager execution
_REQUIREMENTS = ("mlflow", "torch", "numpy")  # all that is needed to load and call it


def try_export(segmenter: VolumeSegmenter, place: str) -> None:
    """Finds out before a training whether what it trains can be exported.

    Args:
        segmenter: Left as it is.
        place: Of its settings, for the message.

    Raises:
        UserError: If it cannot.
    """
    tried = copy.deepcopy(segmenter).eval()
    with TemporaryDirectory(prefix="brainseg-export-") as folder:
        try:
            export_segmenter(tried, Path(folder, "model"))
        except OSError:  # of the disk
            raise
        except Exception as error:  # torch's exporter fails in many ways
            refused = isinstance(error, UserError) and error.__cause__  # by our own check
            reason = str(refused or error).strip().partition("\n")[0]
            raise UserError(
                f"{place}: this network could not be exported once it is trained ({reason}); take "
                "another encoder or architecture"
            ) from error


def export_segmenter(segmenter: ExportableSegmenter, folder: Path) -> float:
    """Writes the model folder and checks that it predicts what the segmenter predicts.

    Slices, height and width stay free in the exported program. The input example kept in the
    archive is synthetic.

    Args:
        segmenter: In eval mode, on the CPU.
        folder: Must not exist yet.

    Returns:
        By how much the probabilities of the two differ at most.

    Raises:
        RuntimeError: If the exported program disagrees with the segmenter.
        UserError: If it has an operator that is not in `components.shared.model.operators`.
    """
    # a plain memory layout: the exported program takes its strides from the weights
    segmenter.to(memory_format=torch.contiguous_format)
    mlflow.pytorch.save_model(
        segmenter,
        folder,
        serialization_format="pt2",
        signature=_signature(),
        input_example=synthetic_example(segmenter.image_size, slices=3),
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in _REQUIREMENTS],
        metadata={
            "channels": list(CHANNELS),
            "context_slices": segmenter.context_slices,
            MIN_COMPONENT_FRACTION: segmenter.min_component_fraction,
        },
    )
    return _check(segmenter, folder)


def synthetic_example(side: int, slices: int) -> Voxels:
    """A made-up volume: a bright ball in noise (uint8, slices x side x side x 3)."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    ball = 120 * (rows**2 + columns**2 < 0.16)
    noise = generator.integers(0, 100, (slices, side, side, 3))
    image: Voxels = (ball[None, :, :, None] + noise).astype(np.uint8)
    return image


def _signature() -> ModelSignature:
    image = TensorSpec(np.dtype("uint8"), (-1, -1, -1, len(CHANNELS)), "image")
    probability = TensorSpec(np.dtype("float32"), (-1, -1, -1), "probability")
    return ModelSignature(inputs=Schema([image]), outputs=Schema([probability]))


def _check(segmenter: ExportableSegmenter, folder: Path) -> float:
    # other sizes and numbers of slices than the example: these dimensions must be free
    exported = load_segmenter(folder, device="cpu")
    side = segmenter.image_size
    images = [synthetic_example(side + 24, slices=5), synthetic_example(side - 8, slices=2)]
    difference = max(_difference(segmenter, exported, image) for image in images)
    if difference > _TOLERANCE:
        raise RuntimeError(f"the exported segmenter differs by {difference} from the trained one")
    return difference


def _difference(segmenter: ExportableSegmenter, exported: Segmenter, image: Voxels) -> float:
    with torch.inference_mode():
        eager = segmenter(torch.from_numpy(image)).numpy()
    return float(np.abs(exported(image) - eager).max())
