import shutil

import numpy as np
import pytest

from components.shared.dataset.channels import LGG_CHANNELS, LGG_TARGETS, Channels
from components.shared.dataset.gray import gray_levels
from components.shared.errors import UserError
from components.shared.model import segmenter
from components.shared.model.segmenter import (
    ChannelsDifferError,
    StoredSegmenter,
    VolumeRefusedError,
    load_segmenter,
    pick_device,
)
from tests.components.conftest import REGIONS, new_run


def test_a_segmenter_takes_volumes_of_any_size(threshold_model):
    loaded = load_segmenter(threshold_model(140), "cpu")
    for slices, side in ((1, 16), (2, 16), (5, 24), (11, 40)):
        levels = np.linspace(100, 180, slices).astype(np.uint8)
        image = np.broadcast_to(levels[:, None, None, None], (slices, side, side, 3))
        (probability,) = loaded(image)
        expected = 1 / (1 + np.exp(-(levels.astype(np.float64) - 140) / 8))
        assert (probability.dtype, probability.shape) == (np.float32, (slices, side, side))
        inner = probability[:, 2:-2, 2:-2]  # the outermost pixels mix with what is outside
        np.testing.assert_allclose(inner, expected[:, None, None] + np.zeros_like(inner), atol=1e-3)


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
        loaded = load_segmenter(threshold_model(140))
        np.testing.assert_array_equal(loaded(image), expected)
        assert torch.get_num_threads() == 3
        assert loaded._threads.threads == fastest
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda image: image[..., 1].float() * float("nan"), "returned values from nan to nan"),
        (lambda image: image[..., 1].float() / 0 * 0, "returned values from nan to nan"),
        (lambda image: image[..., 1].float() * 0 + 1.5, "returned values from 1.5 to 1.5"),
        (lambda image: image[..., 1].float() * 0 - 0.5, "returned values from -0.5 to -0.5"),
        (
            lambda image: image[..., 1:].float() / 255,
            r"returned \(4, 24, 24, 2\), not \(4, 24, 24\)",
        ),
        (lambda image: image[:1, ..., 1].float() / 255, r"returned \(1, 24, 24\), not"),
    ],
    ids=["nan", "0/0", "above 1", "below 0", "channels", "one slice"],
)
def test_an_answer_that_is_no_probability_names_the_volume(make_blob, answer, message):
    with pytest.raises(UserError, match=f"TCGA_CS_0001: the model {message}") as refused:
        segmenter_of(answer)(make_blob(0, slices=4).image, "TCGA_CS_0001")
    assert not isinstance(refused.value, VolumeRefusedError)


def test_a_single_nan_is_an_error(make_blob):
    image = make_blob(0).image
    image[2, 3, 4, 1] = 0
    with pytest.raises(UserError, match="a volume: the model returned values from nan to nan"):
        segmenter_of(lambda image: (image[..., 1].float() - 1).sqrt() / 255)(image)


def test_a_size_that_the_network_cannot_take_names_the_volume(make_blob):
    import torch

    square = segmenter_of(lambda image: (image[..., 1] + torch.zeros(24, 24)) / 255)
    square(make_blob(0, side=24).image)
    with pytest.raises(
        VolumeRefusedError, match="x1: the model cannot take 5 x 20 x 20 voxels: RuntimeError: "
    ):
        square(make_blob(0, side=20).image, "x1")


def test_several_targets_are_the_first_axis(make_blob):
    image = make_blob(0, slices=4, side=20).image
    segmenter = segmenter_of(lambda image: image.movedim(3, 0).float() / 255)
    segmenter.targets = REGIONS
    np.testing.assert_array_equal(segmenter(image), np.moveaxis(image, 3, 0) / np.float32(255))
    segmenter.targets = REGIONS[:2]
    message = r"returned \(3, 4, 20, 20\), not \(2, 4, 20, 20\) \(targets, slices, height, width\)"
    with pytest.raises(UserError, match=message):
        segmenter(image)


def segmenter_of(function):
    import torch

    class Module(torch.nn.Module):
        min_component_fraction = 0.0
        channels = LGG_CHANNELS
        targets = LGG_TARGETS

        def forward(self, image):
            return function(image)

    return StoredSegmenter(Module(), torch.device("cpu"))


def test_an_image_of_other_channels_is_refused_by_their_names(threshold_model, make_blob):
    other = Channels(names=("T1", "FLAIR"))
    with pytest.raises(ChannelsDifferError) as refused:
        load_segmenter(threshold_model(140), "cpu")(make_blob(0).image[..., 1:], "p1", other)
    assert str(refused.value).startswith(
        "p1: the model expects the channels pre-contrast, FLAIR, post-contrast in this order, not "
        "T1, FLAIR; "
    )


@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_a_model_of_gray_levels_gets_them_whatever_the_type(threshold_model, make_blob, kind):
    image = make_blob(0).image.astype(kind) * 9 - 100
    loaded = load_segmenter(threshold_model(140), "cpu")
    levels = gray_levels(image).round().astype(np.uint8)
    np.testing.assert_array_equal(loaded(image, "p1", LGG_CHANNELS), loaded(levels))


@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_a_model_of_any_scale_gets_floats(make_blob, kind):
    segmenter = segmenter_of(lambda image: (image[..., 1] / 1000).to(image.dtype))
    segmenter.channels = Channels(dtype="float32")
    image = make_blob(0).image.astype(kind)
    np.testing.assert_allclose(segmenter(image)[0], image[..., 1] / 1000, rtol=1e-6)


def test_a_mapped_read_only_volume_is_left_alone(threshold_model, make_blob, tmp_path):
    image = make_blob(0).image
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        load_segmenter(threshold_model(140))(mapped), load_segmenter(threshold_model(140))(image)
    )


def test_only_the_two_files_of_the_stored_form_are_downloaded(
    local_mlflow, threshold_model, make_blob, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    folder = shutil.copytree(threshold_model(140), tmp_path / "model")
    (folder / "data").mkdir()
    (folder / "data" / "model.pt2").write_bytes(bytes(2**20))
    client = MlflowClient()
    run_id = new_run()
    client.log_artifacts(run_id, str(folder), "segmenter")
    client.create_registered_model("downloads")
    client.create_model_version("downloads", source=f"runs:/{run_id}/segmenter")
    client.set_registered_model_alias("downloads", "champion", "1")
    expected, read, seen = load_segmenter(folder)(make_blob(0).image), segmenter.read_segmenter, []

    def read_and_look(config, weights):
        seen.extend(path.name for path in config.parents[1].rglob("*") if path.is_file())
        return read(config, weights)

    monkeypatch.setattr(segmenter, "read_segmenter", read_and_look)
    for uri in (f"runs:/{run_id}/segmenter", "models:/downloads/1", "models:/downloads@champion"):
        seen.clear()
        np.testing.assert_array_equal(load_segmenter(uri)(make_blob(0).image), expected)
        assert sorted(seen) == ["config.json", "model.safetensors"]


def test_a_registered_model_of_brainseg_0_1_is_refused(local_mlflow, tmp_path):
    from mlflow import MlflowClient

    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    client = MlflowClient()
    run_id = new_run()
    client.log_artifacts(run_id, str(tmp_path), "segmenter")
    with pytest.raises(UserError, match=r"archive \(of brainseg 0\.1\.0\), but brainseg .* reads"):
        load_segmenter(f"runs:/{run_id}/segmenter")
    with pytest.raises(UserError, match="cannot be loaded") as refused:
        load_segmenter(f"runs:/{run_id}/other")
    assert "archive" not in str(refused.value)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_model_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be loaded"):
        load_segmenter(tmp_path / name)


def test_a_gpu_that_is_not_there_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert pick_device("auto") == "cpu"
    with pytest.raises(UserError, match="torch sees no GPU; use device=auto or cpu"):
        pick_device("cuda")
