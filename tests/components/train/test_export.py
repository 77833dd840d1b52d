import json
from importlib import metadata

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from components.shared.errors import UserError
from components.shared.model.network import PairedSegmenter, build_segmenter
from components.shared.model.segmenter import load_segmenter
from components.train.export import export_segmenter, synthetic_example, try_export
from tests.components.conftest import REGIONS


@pytest.fixture
def segmenter(make_recipe):
    torch.manual_seed(0)
    return build_segmenter(make_recipe(network={"min_component_fraction": 0.125}).network).eval()


@pytest.fixture
def folder(segmenter, exported):
    """The model folder of the segmenter; not to be changed."""
    if not exported.exists():
        export_segmenter(segmenter, exported)
    return exported


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tmp_path_factory.mktemp("export") / "model"


def predicted(segmenter, image):
    with torch.inference_mode():
        return segmenter(torch.from_numpy(image)).numpy()


def test_both_forms_take_any_slices_height_and_width(segmenter, folder):
    stored, archive = load_segmenter(folder, "cpu"), mlflow.pytorch.load_model(str(folder))
    generator = np.random.default_rng(0)
    for shape in ((1, 32, 32), (2, 32, 32), (3, 64, 40), (7, 5, 5), (4, 33, 97), (20, 48, 32)):
        image = generator.integers(0, 256, (*shape, 3), np.uint8)
        expected = predicted(segmenter, image)
        np.testing.assert_allclose(stored(image)[0], expected, atol=1e-5)
        if shape[0] > 2:  # the archive refuses fewer
            np.testing.assert_allclose(predicted(archive, image), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("is_pair", [False, True])
def test_all_forms_find_several_targets_alike(make_recipe, tmp_path, is_pair):
    torch.manual_seed(0)
    network = make_recipe().network
    segmenter = build_segmenter(network, targets=REGIONS).eval()
    if is_pair:
        second = network.model_copy(update={"sequences": "reference"})
        segmenter = PairedSegmenter(segmenter, build_segmenter(second, targets=REGIONS).eval())
    folder = tmp_path / "model"
    assert export_segmenter(segmenter, folder) < 1e-4
    stored, archive = load_segmenter(folder, "cpu"), mlflow.pytorch.load_model(str(folder))
    served = mlflow.pyfunc.load_model(str(folder)).predict
    for shape in ((3, 64, 40), (7, 5, 5), (4, 33, 97)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        expected = predicted(segmenter, image)
        assert expected.shape == (3, *shape)
        for found in (stored(image), predicted(archive, image), served(image)):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    described = Model.load(str(folder))
    (probability,) = described.signature.outputs.inputs
    assert (probability.type, probability.shape) == (np.dtype("float32"), (3, -1, -1, -1))
    assert described.metadata["targets"] == ["whole", "core", "enhancing"]


def test_mlflows_generic_interface_predicts_an_array(segmenter, folder):
    """As `mlflow models serve` does. A named input was refused whatever one sent."""
    image = synthetic_example(40, slices=3)
    served = mlflow.pyfunc.load_model(str(folder)).predict(image)
    np.testing.assert_allclose(served, predicted(segmenter, image), atol=1e-5)
    with pytest.raises(MlflowException, match="Failed to enforce schema"):
        mlflow.pyfunc.load_model(str(folder)).predict(image[..., :2])


def test_it_is_loaded_in_the_layout_in_which_convolutions_are_fastest(folder):
    weights = [w for w in load_segmenter(folder, "cpu")._module.parameters() if w.dim() == 4]
    assert len(weights) > 10
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_the_example_in_the_folder_is_made_up(segmenter, folder):
    # what MLflow keeps for people, and what torch keeps in the archive
    example = synthetic_example(segmenter.image_size, slices=3)
    kept = json.loads((folder / "input_example.json").read_text())
    np.testing.assert_array_equal(np.array(kept), example)
    program = torch.export.load(folder / "data" / "model.pt2")
    (volume,), keywords = program.example_inputs
    np.testing.assert_array_equal(volume.numpy(), example)
    assert keywords == {}
    assert set(program.constants) == set()


def test_the_loaded_segmenter_leaves_out_what_the_recipe_says(folder):
    assert load_segmenter(folder, "cpu").min_component_fraction == 0.125


def test_the_folder_says_what_it_takes_gives_and_needs(segmenter, folder):
    found = Model.load(str(folder))
    (image,), (probability,) = found.signature.inputs.inputs, found.signature.outputs.inputs
    assert (image.type, image.shape) == (np.dtype("uint8"), (-1, -1, -1, 3))
    assert (probability.type, probability.shape) == (np.dtype("float32"), (-1, -1, -1))
    channels = ["pre-contrast", "FLAIR", "post-contrast"]
    assert found.metadata == {
        "channels": channels,
        "reference": "FLAIR",
        "targets": ["tumour"],
        "orientation": "LPS",
        "context_slices": segmenter.context_slices,
        "min_component_fraction": 0.125,
    }
    requirements = (folder / "requirements.txt").read_text().split()
    assert requirements == [
        f"{name}=={metadata.version(name)}" for name in ("mlflow", "torch", "numpy")
    ]
    assert yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["pytorch"]["code"] is None


def test_an_export_that_disagrees_is_an_error(recipe, tmp_path):
    class Forgetful(type(build_segmenter(recipe.network))):
        def forward(self, volume):
            # what only depends on the example's size is lost in the export
            probability = super().forward(volume)
            return probability if torch.compiler.is_exporting() else 1 - probability

    segmenter = build_segmenter(recipe.network).eval()
    segmenter.__class__ = Forgetful
    with pytest.raises(RuntimeError, match=r"differs by 0\.\d+ from the trained one"):
        export_segmenter(segmenter, tmp_path / "model")


def test_the_example_has_a_bright_ball_in_noise():
    example = synthetic_example(64, slices=3)
    assert (example.shape, example.dtype) == ((3, 64, 64, 3), np.uint8)
    assert example[:, 28:36, 28:36].mean() > example[:, :8, :8].mean() + 100
    np.testing.assert_array_equal(example, synthetic_example(64, slices=3))


class Branching(torch.nn.Module):
    """A network whose code depends on the values of the images."""

    def forward(self, images):
        return images[:, :1] if images.sum() > 0 else images[:, 1:2]


def test_a_network_that_cannot_be_exported_is_refused_before_it_is_trained(recipe):
    segmenter = build_segmenter(recipe.network)
    segmenter.network = Branching()
    with pytest.raises(UserError, match=r"train\.network: this network could not be exported once"):
        try_export(segmenter, "train.network")
    assert segmenter.training


def test_to_try_an_export_changes_nothing(recipe):
    """A network in another memory layout, which the archive would keep, is exported too."""
    segmenter = build_segmenter(recipe.network).to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    try_export(segmenter, "train.network")
    torch.testing.assert_close(segmenter.state_dict(), before, rtol=0, atol=0)
    assert segmenter.training
    weights = [weight for weight in segmenter.parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
