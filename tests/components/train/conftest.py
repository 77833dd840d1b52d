"""Small volumes of the kind that training reads: a bright ball that is the tumour."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from components.shared.dataset.manifest import Manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.dataset.volumes import Volume
from components.shared.model.network import build_segmenter
from components.shared.storage.store import Store, open_store
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.fit import Fit, fit
from components.train.recipe import Recipe
from tests.components.conftest import REGIONS

SLICES, SIDE = 6, 48


@pytest.fixture(autouse=True)
def _one_thread():
    # on volumes this small threads only wait for each other, the more so on a busy machine
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ball_volume(seed: int, slices: int = SLICES, side: int = SIDE) -> Volume:
    generator = np.random.default_rng(seed)
    centre = generator.uniform(0.35, 0.65, 3)
    places = np.stack(np.mgrid[0:slices, 0:side, 0:side], axis=-1) / (slices, side, side)
    mask = (((places - centre) ** 2).sum(-1) < 0.05).astype(np.uint8)
    head = ((places[..., 1:] - 0.5) ** 2).sum(-1) < 0.2
    image = head[..., None] * generator.integers(60, 100, (slices, side, side, 3))
    image[..., 1] += 80 * mask
    return Volume(image.astype(np.uint8), mask)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def manifest(store: Store, publish: Callable[..., Manifest]) -> Manifest:
    return publish(store, [ball_volume(seed) for seed in range(6)])


@pytest.fixture
def dataset(store: Store, manifest: Manifest, tmp_path: Path) -> SplitDataset:
    volumes = manifest.volumes
    split = make_split({"train": volumes[:4], "validation": volumes[4:5], "test": volumes[5:]})
    return SplitDataset(store, tmp_path / "cache", manifest, split)


@pytest.fixture
def regions(store: Store, publish: Callable[..., Manifest], tmp_path: Path) -> SplitDataset:
    """The same balls with a core, and an enhancing part in its middle."""
    volumes = [nested_volume(seed) for seed in range(6)]
    labels = {"necrosis": 1, "edema": 2, "enhancing": 3}
    manifest = publish(store, volumes, labels=labels, targets=REGIONS)
    listed = manifest.volumes
    split = make_split({"train": listed[:4], "validation": listed[4:5], "test": listed[5:]})
    return SplitDataset(store, tmp_path / "cache", manifest, split)


def nested_volume(seed: int) -> Volume:
    ball = ball_volume(seed)
    in_plane = np.ones((1, 3, 3))
    inner, middle = (ndimage.binary_erosion(ball.mask, in_plane, depth) for depth in (4, 2))
    labels = np.select([inner, middle, ball.mask > 0], [3, 1, 2]).astype(np.uint8)
    image = ball.image + 30 * np.stack([middle, inner, inner], axis=-1).astype(np.uint8)
    return replace(ball, image=image, mask=labels)


_SMALL = {
    "network": {
        "encoder": "tu-test_resnet",
        "encoder_weights": "none",
        "encoder_depth": 3,
        "decoder_channels": (16, 8, 8),
        "image_size": 32,
    },
    "sampling": {"batch_size": 4},
    "schedule": {"epochs": 4},
    "compute": {"precision": "32-true", "device": "cpu"},
}


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """Makes the small recipe with some settings of some sections changed."""

    def make(**sections: dict[str, object]) -> Recipe:
        names = {**_SMALL, **sections}
        changed = {name: {**_SMALL.get(name, {}), **sections.get(name, {})} for name in names}
        return Recipe.model_validate(changed)

    return make


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    return make_recipe()


@pytest.fixture
def tracking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_mlflow: Callable[[Path], str]
) -> str:
    uri = make_mlflow(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return uri


class Interruption(Exception):
    """Stands for whatever ends a task in the middle."""


@pytest.fixture
def train(dataset: SplitDataset, tmp_path: Path) -> Callable[..., Fit]:
    """Trains; of trainings with one name the second goes on where the first stopped."""

    def train(recipe, name, listen=lambda epoch: None, callbacks=()):  # type: ignore[no-untyped-def]
        torch.manual_seed(recipe.seed)
        segmenter = build_segmenter(recipe.network)
        return fit(
            recipe,
            segmenter,
            prepare_volumes(dataset, "train", segmenter),
            prepare_volumes(dataset, "validation", segmenter),
            Checkpoints(dataset.store, name, tmp_path / "work"),
            listen,
            callbacks,
        )

    return train


@pytest.fixture(scope="session")
def _fits() -> dict[str, Fit]:
    return {}


@pytest.fixture
def whole(train: Callable[..., Fit], recipe: Recipe, _fits: dict[str, Fit]) -> Fit:
    """The uninterrupted training of the small recipe, done once for all tests."""
    if not _fits:
        _fits["whole"] = train(recipe, "whole")
    return _fits["whole"]


def assert_same_fit(one: Fit, two: Fit) -> None:
    """Asserts that two trainings measured the same and ended with the same weights, bit for bit."""
    assert one.history == two.history
    for name, weight in one.segmenter.state_dict().items():
        torch.testing.assert_close(two.segmenter.state_dict()[name], weight, rtol=0, atol=0)
