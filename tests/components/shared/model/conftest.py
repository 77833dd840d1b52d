"""Stored models, and a process with little memory in which to load them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from components.shared.model.settings import Network

SMALL = {
    "encoder": "tu-test_resnet",
    "encoder_weights": "none",
    "decoder_channels": (16, 16, 8, 8, 8),
    "image_size": 32,
}
STORED = Path(__file__).with_name("stored")


def seeded_weights(listing):
    """Weights from a seed, for a JSON file of names, types and shapes."""
    generator = np.random.default_rng(0)
    weights = {}
    for name, (kind, shape) in json.loads(listing.read_text()).items():
        if kind == "int64":
            weights[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            values = torch.from_numpy(generator.standard_normal(shape, np.float32))
            values *= (2 / max(1, np.prod(shape[1:]))) ** 0.5 if len(shape) > 1 else 0.1
            # of batch normalization
            is_scale = len(shape) == 1 and name.endswith(("weight", "running_var"))
            weights[name] = 1 + values.abs() if is_scale else values
    return weights


@pytest.fixture
def make_network():
    """Makes the settings of a small network, with changes."""

    def make(**changes):
        return Network(**{**SMALL, **changes})

    return make


@pytest.fixture(scope="session")
def stored_model(tmp_path_factory):
    """Makes the model folder of a stored form that is committed as text."""

    def make(version):
        folder = tmp_path_factory.mktemp(version) / "model"
        (folder / "segmenter").mkdir(parents=True)
        config = (STORED / version / "config.json").read_bytes()
        (folder / "segmenter" / "config.json").write_bytes(config)
        weights = seeded_weights(STORED / version / "weights.json")
        save_file(weights, folder / "segmenter" / "model.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def load_with_little_memory():
    """Loads model folders in one process; returns each error and the peak memory in MB."""

    def load(folders):
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("loading_child.py"))],
            input="\n".join(map(str, folders)),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return load
