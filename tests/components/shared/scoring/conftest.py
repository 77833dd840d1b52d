"""Scores of small volumes; a small exported model, and a process in which to load others."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.ingest.entry import describe_volume
from components.shared.dataset.volumes import Volume, encode_volume
from components.shared.reading.tcga import parse_scan_name
from components.shared.scoring.scores import score_volume


def export_model(module, folder, side=-1):
    """Saves a module as the export step does: any slices, height and width (or one side)."""
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    shape = (3, 8, 9, 3) if side == -1 else (3, side, side, 3)
    mlflow.pytorch.save_model(
        module.eval(),
        folder,
        serialization_format="pt2",
        signature=ModelSignature(Schema([TensorSpec(np.dtype("uint8"), (-1, side, side, 3))])),
        input_example=np.random.default_rng(0).integers(0, 255, shape, np.uint8),
        pip_requirements=["torch"],
    )
    return folder


@pytest.fixture(scope="session")
def export():
    return export_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A model folder with weights, a buffer, a constant and arithmetic of sizes."""
    import torch

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 2, 3, padding=1)
            self.normalization = torch.nn.BatchNorm2d(2)

        def forward(self, volume):
            slices = (
                volume.permute(0, 3, 1, 2).float() * torch.tensor([1.0, 0.5, 2.0])[:, None, None]
            )
            logits = self.normalization(self.convolution(slices[:, :, ::2, ::2] / 100))
            wide = torch.nn.functional.interpolate(logits, size=tuple(volume.shape[1:3]))
            return torch.sigmoid(wide.amax(1))

    return export_model(Small(), tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="session")
def small_members(small_model):
    """The members of its archive, by name, below `model/`."""
    with zipfile.ZipFile(small_model / "data" / "model.pt2") as archive:
        return {
            f"model/{name.partition('/')[2]}": archive.read(name) for name in archive.namelist()
        }


def zip_members(members):
    """An archive of members, as torch writes one: stored."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture(scope="session")
def zipped():
    return zip_members


@pytest.fixture(scope="session")
def load_in_child():
    """Loads and runs models in a process of their own; what they did there is told.

    Returns for each folder `works`, `refused: ...` or a traceback, and what the audit saw.
    """

    def load(folders, loader="load_segmenter"):
        script = Path(__file__).with_name("audited_child.py")
        done = subprocess.run(
            [sys.executable, str(script), loader],
            input=json.dumps([str(folder) for folder in folders]),
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[4]),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return load


@pytest.fixture(scope="session")
def score():
    """Scores a probability against a mask; the whole image is head unless one is given."""

    def score(truth, probability, name="TCGA_CS_0001_20000101", image=None, threshold=0.5):
        mask = np.asarray(truth, dtype=np.uint8)
        if image is None:
            image = np.full((*mask.shape, 3), 100, dtype=np.uint8)
        volume = Volume(image, mask)
        entry = describe_volume(parse_scan_name(name), volume, encode_volume(volume))
        probability = np.asarray(probability, dtype=np.float32)
        return score_volume(entry, volume, probability, probability >= threshold)

    return score


@pytest.fixture(scope="session")
def some_scores(score):
    """Scores of patients at three sites, the first without tumour."""

    def some_scores(count=7, seed=0, shape=(3, 6, 5)):
        random = np.random.default_rng(seed)
        scores = []
        for index in range(count):
            truth = random.random(shape) < 0.1 * index
            probability = np.clip(truth * 0.6 + random.random(shape) * 0.6, 0, 1)
            site = ("CS", "DU", "HT")[index % 3]
            scores.append(score(truth, probability, f"TCGA_{site}_000{index}_20000101"))
        return scores

    return some_scores
