import numpy as np
import pytest
import torch

from components.shared.errors import UserError
from components.train.network import (
    build_segmenter,
    freeze_unused,
    head_box,
    head_statistics,
    with_neighbours,
)


def test_head_statistics_are_those_of_the_voxels_inside_the_head():
    generator = np.random.default_rng(0)
    volume = np.zeros((4, 40, 40, 3), np.uint8)
    volume[:, 8:32, 8:32] = generator.integers(90, 160, (4, 24, 24, 3))
    mean, deviation = head_statistics(torch.from_numpy(volume))
    inside = volume[:, ::4, ::4][:, 2:8, 2:8].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(mean.numpy(), inside.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation.numpy(), inside.std(0), rtol=1e-5)


def test_an_empty_volume_has_usable_statistics():
    mean, deviation = head_statistics(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    assert mean.tolist() == [0, 0, 0]
    assert deviation.tolist() == [1, 1, 1]


def test_brightness_and_contrast_of_a_scanner_make_no_difference(recipe):
    generator = np.random.default_rng(0)
    dim = np.zeros((3, 64, 64, 3), np.uint8)
    dim[:, 8:56, 8:56] = generator.integers(50, 100, (3, 48, 48, 3))
    segmenter = build_segmenter(recipe.network)
    once = segmenter.prepare(torch.from_numpy(dim))[:, :, 4:28, 4:28]
    twice = segmenter.prepare(torch.from_numpy(dim * 2))[:, :, 4:28, 4:28]
    torch.testing.assert_close(once, twice, atol=1e-4, rtol=1e-4)


def test_the_box_is_the_square_around_the_head():
    volume = np.zeros((2, 100, 80, 3), np.uint8)
    volume[0, 20:60, 30:50] = 200
    volume[1, 5, 5] = 255  # a bright speck is not the head
    x, y, half_width, half_height = head_box(torch.from_numpy(volume)).tolist()
    assert (x, y) == pytest.approx((0.0, -0.2), abs=0.01)
    assert half_width * 40 == pytest.approx(half_height * 50)
    assert half_height * 50 == pytest.approx(20, rel=0.1)


def test_an_empty_volume_is_not_cut():
    box = head_box(torch.zeros(2, 20, 20, 3, dtype=torch.uint8))
    assert box.tolist() == pytest.approx([0, 0, 1.05, 1.05], abs=0.06)


def test_neighbours_are_the_slices_before_and_after():
    slices = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    stacked = with_neighbours(slices, 2)
    assert stacked.shape == (4, 15, 2, 2)
    assert stacked[:, ::3, 0, 0].tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 3],
        [1, 2, 3, 3, 3],
    ]


@pytest.mark.parametrize("shape", [(2, 32, 32), (5, 48, 40), (3, 20, 100)])
def test_a_volume_of_any_size_gives_a_probability_a_voxel(recipe, shape):
    volume = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    with torch.inference_mode():
        probability = build_segmenter(recipe.network).eval()(volume)
    assert probability.shape == shape
    assert probability.dtype == torch.float32
    assert 0 <= probability.min() <= probability.max() <= 1


def test_missing_weights_say_how_to_go_on(make_recipe, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"cannot be downloaded.*train.network.encoder_weights=none"
    ):
        build_segmenter(make_recipe(network={"encoder_weights": "imagenet"}).network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet19"}, "resnet19"),
        ({"architecture": "vnet", "decoder_channels": None}, "vnet"),
    ],
)
def test_an_impossible_network_is_named(make_recipe, change, message):
    with pytest.raises(UserError, match=message):
        build_segmenter(make_recipe(network=change).network)


@pytest.mark.parametrize(("depth", "unused"), [(5, False), (3, True)])
def test_stages_behind_the_encoders_depth_are_not_trained(make_recipe, depth, unused):
    network = {"encoder_depth": depth, "decoder_channels": (16, 16, 8, 8, 8)[:depth]}
    segmenter = build_segmenter(make_recipe(network=network).network)
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    freeze_unused(segmenter)
    frozen = [name for name, value in segmenter.named_parameters() if not value.requires_grad]
    assert bool(frozen) is unused
    assert all(".encoder." in name for name in frozen)
    torch.testing.assert_close(segmenter.state_dict(), before, rtol=0, atol=0)
