import os
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.scoring.segmenter import _load_on, load_segmenter, pick_device


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
    monkeypatch.setattr("components.shared.threads.time_threads", lambda work, most: seconds)
    monkeypatch.setattr("components.shared.threads.usable_cores", lambda: 3)
    torch.set_num_threads(3)
    try:
        segmenter = load_segmenter(threshold_model(140))
        np.testing.assert_array_equal(segmenter(image), expected)
        assert torch.get_num_threads() == 3
        assert segmenter._threads.threads == fastest
    finally:
        torch.set_num_threads(before)


def test_a_program_moves_to_another_device_with_its_constants(tmp_path):
    import mlflow.pytorch
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    class Ramp(torch.nn.Module):
        def forward(self, image):
            ramp = torch.arange(image.shape[2], device=image.device)
            return image[..., 1] * ramp / 1000

    example = np.zeros((3, 8, 9, 3), np.uint8)
    mlflow.pytorch.save_model(
        *(Ramp(), tmp_path / "model"),
        serialization_format="pt2",
        input_example=example,
        signature=ModelSignature(Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))])),
        pip_requirements=["torch"],
    )
    # `meta` stands for a GPU: an operation on tensors of two devices fails there too
    moved = _load_on(tmp_path / "model", torch.device("meta"))
    assert moved(torch.zeros(5, 7, 6, 3, dtype=torch.uint8, device="meta")).device.type == "meta"


def test_a_mapped_read_only_volume_is_left_alone(threshold_model, make_blob, tmp_path):
    image = make_blob(0).image
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        load_segmenter(threshold_model(140))(mapped), load_segmenter(threshold_model(140))(image)
    )


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def plant(folder, target, proof):
    """Copies a model folder and puts a pickle that makes `proof` into every part that can."""
    shutil.copytree(folder, target)
    archive = target / "data" / "model.pt2"
    with (
        zipfile.ZipFile(folder / "data" / "model.pt2") as old,
        zipfile.ZipFile(archive, "w") as new,
    ):
        planted = 0
        for name in old.namelist():
            data = old.read(name)
            if "sample_inputs" in name and name.endswith(".pt"):
                data, planted = pickle.dumps(Attack(proof)), planted + 1
            new.writestr(name, data)
    assert planted, "torch keeps the sample inputs elsewhere now: mend this test"
    return target


def test_an_archive_that_could_run_code_is_refused(threshold_model, tmp_path):
    proof = tmp_path / "proof"
    model = plant(threshold_model(140), tmp_path / "model", proof)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_segmenter(model)
    assert not proof.exists()


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
    with pytest.raises(UserError, match="not one exported program without code or pickle"):
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
    with pytest.raises(UserError, match="not one exported program"):
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
