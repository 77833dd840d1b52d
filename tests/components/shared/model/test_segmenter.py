import shutil
import sys

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.model.segmenter import VolumeRefusedError, load_segmenter, pick_device


def test_a_segmenter_takes_volumes_of_any_size(threshold_model, make_blob):
    segmenter = load_segmenter(threshold_model(140))
    for slices, side in ((2, 16), (5, 24), (11, 40)):
        image = make_blob(0, slices, side).image
        probability = segmenter(image)
        expected = 1 / (1 + np.exp(-(image[..., 1].astype(np.float64) - 140) / 8))
        assert probability.dtype == np.float32
        np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_one_slice_is_predicted_like_its_double(threshold_model, make_blob):
    segmenter, image = load_segmenter(threshold_model(140)), make_blob(0, slices=2).image
    np.testing.assert_array_equal(segmenter(image[:1]), segmenter(image)[:1])


@pytest.mark.parametrize("fastest", [1, 3])
def test_the_number_of_threads_changes_no_prediction_and_is_given_back(
    threshold_model, make_blob, monkeypatch, fastest
):
    import torch

    image, before = make_blob(0, slices=11, side=40).image, torch.get_num_threads()
    expected = load_segmenter(threshold_model(140))(image)
    seconds = {3: 0.5, 1: 0.5} | {fastest: 0.1}
    monkeypatch.setattr("components.shared.threads.time_threads", lambda *_, **__: seconds)
    monkeypatch.setattr("components.shared.threads.usable_cores", lambda: 3)
    torch.set_num_threads(3)
    try:
        segmenter = load_segmenter(threshold_model(140))
        np.testing.assert_array_equal(segmenter(image), expected)
        assert torch.get_num_threads() == 3
        assert segmenter._threads.threads == fastest
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda image: image[..., 1].float() * float("nan"), "gave values from nan to nan"),
        (lambda image: image[..., 1].float() / 0 * 0, "gave values from nan to nan"),
        (lambda image: image[..., 1].float() * 0 + 1.5, "gave values from 1.5 to 1.5"),
        (lambda image: image[..., 1].float() * 0 - 0.5, "gave values from -0.5 to -0.5"),
        (lambda image: image[..., 1:].float() / 255, r"gave \(4, 24, 24, 2\), not \(4, 24, 24\)"),
        (lambda image: image[:1, ..., 1].float() / 255, r"gave \(1, 24, 24\), not"),
    ],
    ids=["nan", "0/0", "above 1", "below 0", "channels", "one slice"],
)
def test_an_answer_that_is_no_probability_names_the_volume(
    export, make_blob, tmp_path, answer, message
):
    segmenter = load_segmenter(export(module_of(answer), tmp_path / "model"), "cpu")
    with pytest.raises(UserError, match=f"TCGA_CS_0001: the model {message}") as told:
        segmenter(make_blob(0, slices=4).image, "TCGA_CS_0001")
    assert not isinstance(told.value, VolumeRefusedError)


def test_a_single_nan_is_an_error(export, make_blob, tmp_path):
    image = make_blob(0).image
    image[2, 3, 4, 1] = 0
    root = module_of(lambda image: (image[..., 1].float() - 1).sqrt() / 255)
    with pytest.raises(UserError, match="a volume: the model gave values from nan to nan"):
        load_segmenter(export(root, tmp_path / "model"), "cpu")(image)


def test_a_size_that_the_program_cannot_take_names_the_volume(export, make_blob, tmp_path):
    import torch

    square = module_of(lambda image: (image[..., 1] + torch.zeros(24, 24)) / 255)
    segmenter = load_segmenter(export(square, tmp_path / "model", side=24), "cpu")
    segmenter(make_blob(0, side=24).image)
    with pytest.raises(VolumeRefusedError, match="x1: the model cannot take 5 x 20 x 20 voxels"):
        segmenter(make_blob(0, side=20).image, "x1")


def module_of(function):
    import torch

    class Module(torch.nn.Module):
        def forward(self, image):
            return function(image)

    return Module()


def test_a_mapped_read_only_volume_is_left_alone(threshold_model, make_blob, tmp_path):
    image = make_blob(0).image
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        load_segmenter(threshold_model(140))(mapped), load_segmenter(threshold_model(140))(image)
    )


def plant_module(folder, proof):
    """Adds code that makes `proof` when it is imported, and names it as MLflow does."""
    (folder / "code").mkdir()
    (folder / "code" / "planted.py").write_text(f"import os; os.mkdir({str(proof)!r})")
    description = folder / "MLmodel"
    description.write_text(description.read_text().replace("code: null", "code: code"))


def test_a_folder_with_code_is_refused(threshold_model, tmp_path):
    model, proof = tmp_path / "model", tmp_path / "proof"
    shutil.copytree(threshold_model(140), model)
    plant_module(model, proof)
    before = list(sys.path)
    with pytest.raises(UserError, match=r"MLmodel has another flavors\.pytorch\.code"):
        load_segmenter(model)
    assert sys.path == before


def test_a_pickled_model_is_refused_before_its_modules_are_imported(tmp_path):
    import mlflow.pytorch
    import torch

    model, proof = tmp_path / "model", tmp_path / "proof"
    mlflow.pytorch.save_model(
        torch.nn.Identity(), model, serialization_format="pickle", pip_requirements=["torch"]
    )
    plant_module(model, proof)
    (model / "data" / "pickle_module_info.txt").write_text("planted")
    with pytest.raises(UserError, match=r"MLmodel has another flavors\.pytorch\.code"):
        load_segmenter(model)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_model_is_told(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be loaded"):
        load_segmenter(tmp_path / name)


def test_a_gpu_that_is_not_there_is_told():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert pick_device("auto") == "cpu"
    with pytest.raises(UserError, match="torch sees no GPU; use device=auto or cpu"):
        pick_device("cuda")
