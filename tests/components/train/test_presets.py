"""Every recipe that comes with the package, shrunk to two steps."""

import numpy as np
import pytest
import torch

from components.shared.scoring.segmenter import load_segmenter
from components.train.export import export_segmenter
from components.train.network import PairedSegmenter, build_segmenter
from components.train.recipe import Recipe
from components.train.training import train_model
from pipelines.settings import load_preset, preset_names

_SMALL = [
    "train.network.image_size=64",
    "train.network.encoder_weights=none",
    "train.schedule.validate_every_epochs=8",
    "train.compute.precision=32-true",
]


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.usefixtures("tracking")
def test_a_recipe_trains_and_exports(name, dataset, tmp_path):
    report, model = tmp_path / "profile.html", tmp_path / "model"
    report.write_text("<html></html>")
    train_model(
        _small(name),
        dataset,
        pipeline_run="run-1",
        profile_report=report,
        model=model,
        history=tmp_path / "history.json",
    )
    exported = load_segmenter(model, device="cpu")
    volume = dataset.volume(dataset.entries("test")[0])
    assert exported(volume.image).shape == volume.mask.shape


def test_both_networks_are_exported_and_the_scan_chooses(tmp_path):
    recipe = _small("buda2019")
    networks = (recipe.network, recipe.flair_network)
    segmenter = PairedSegmenter(*(build_segmenter(one).eval() for one in networks))
    export_segmenter(segmenter, tmp_path / "model")
    exported = load_segmenter(tmp_path / "model", device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    lacking = image.copy()
    lacking[..., 2] = lacking[..., 1]
    with torch.inference_mode():
        whole = segmenter.whole(torch.from_numpy(image)).numpy()
        flair = segmenter.flair(torch.from_numpy(lacking)).numpy()
    np.testing.assert_allclose(exported(image), whole, atol=1e-4)
    np.testing.assert_allclose(exported(lacking), flair, atol=1e-4)


def _small(name: str) -> Recipe:
    changes = list(_SMALL)
    recipe = load_preset(name, changes)["train"]
    assert isinstance(recipe, Recipe)
    phases = len(recipe.schedule.phases)
    changes += [f"train.schedule.epochs={max(2, phases)}"]
    if recipe.network.architecture == "plain_unet":
        changes += ["train.flair_network.image_size=64", "train.sampling.batch_size=8"]
    if phases > 1:
        small = [phase.model_dump(mode="json") for phase in recipe.schedule.phases]
        small = [{**one, "image_size": one["image_size"] and 32} for one in small]
        changes += [f"train.schedule.phases={small}".replace("None", "null")]
    shrunk = load_preset(name, changes)["train"]
    assert isinstance(shrunk, Recipe)
    return shrunk
