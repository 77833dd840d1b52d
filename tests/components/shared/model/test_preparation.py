import numpy as np
import pytest
import torch

from components.shared.dataset import gray
from components.shared.model.preparation import (
    NORMALIZATIONS,
    gray_levels,
    head_box,
    head_statistics,
    imagenet_statistics,
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


def test_percentiles_around_the_head_bound_all_sequences_before_they_are_standardised():
    generator = np.random.default_rng(0)
    volume = np.zeros((4, 80, 80, 3), np.uint8)
    volume[:, 20:60, 12:52] = generator.integers(0, 200, (4, 40, 40, 3))
    volume[0, 20:24, 12:16] = 255
    found = volume[:, ::4, ::4].reshape(-1, 3)
    bright = [np.percentile(one[one > 0], 99, method="inverted_cdf") for one in found.T]
    air = np.where(volume < 0.1 * np.array(bright), 0, volume)
    seen = air[:, 20:60:4, 12:52:4].astype(float)  # the box's margin is less than four pixels
    low, high = np.percentile(seen, (10, 99), method="inverted_cdf")
    bounded = np.clip(seen, low, high)
    mean, deviation = bounded.mean((0, 1, 2)), bounded.std((0, 1, 2))
    wanted = (np.clip(air[:, ::4, ::4], low, high) - mean) / deviation
    normal = NORMALIZATIONS["percentiles"](torch.from_numpy(volume))[:, :, ::4, ::4]
    np.testing.assert_allclose(normal.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-4)


@pytest.fixture
def dark_flair():
    """A volume whose FLAIR is dark, but for nine voxels; its tumour is bright in FLAIR."""
    generator = np.random.default_rng(0)
    volume = np.zeros((4, 64, 64, 3), np.uint8)
    volume[:, 12:52, 12:52] = generator.integers(60, 100, (4, 40, 40, 3))
    volume[..., 1] //= 6
    tumour = np.zeros((4, 64, 64), bool)
    tumour[1:3, 24:36, 24:36] = True
    volume[tumour, 1] += 8
    hot = volume.copy()
    hot[0, 20:23, 20:23, 1] = 255
    return torch.from_numpy(volume), torch.from_numpy(hot), torch.from_numpy(tumour)


def test_a_few_hot_voxels_do_not_erase_a_dark_sequence(dark_flair):
    """As in TCGA_HT_A61A, where 91 % of the tumour's FLAIR became air."""
    _, hot, tumour = dark_flair
    flair = NORMALIZATIONS["percentiles"](hot)[:, 1]
    head = hot[..., 0] > 0
    assert flair[tumour].min() > flair[head & ~tumour].median()


@pytest.mark.parametrize("channels", [slice(None), [1, 1, 1]])
def test_a_few_hot_voxels_do_not_change_the_box(dark_flair, channels):
    dark, hot, _ = dark_flair
    torch.testing.assert_close(
        head_box(hot[..., channels]), head_box(dark[..., channels]), rtol=0, atol=0
    )


def test_imagenet_statistics_are_torchvision_s():
    from torchvision.models import ResNet18_Weights

    preset = ResNet18_Weights.IMAGENET1K_V1.transforms()
    volume = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    normal = NORMALIZATIONS["imagenet"](volume)
    wanted = (volume.permute(0, 3, 1, 2) / 255 - torch.tensor(preset.mean).view(1, 3, 1, 1)) / (
        torch.tensor(preset.std).view(1, 3, 1, 1)
    )
    torch.testing.assert_close(normal, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", NORMALIZATIONS)
def test_an_empty_volume_stays_finite(way):
    assert NORMALIZATIONS[way](torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).isfinite().all()


def _odd_scales(kind):
    """Channels from 0, with negative values, one value only, hot voxels, and a fine scale."""
    generator = np.random.default_rng(0)
    image = generator.normal(400, 120, (5, 37, 41, 5))
    image[..., 0] = np.abs(image[..., 0])
    image[..., 1] -= 1400
    image[..., 2] = 7
    image[1, 9, 1:4, 3] = 30_000  # a fortieth of the range holds all others
    image[..., 4] *= 1 if kind == "int16" else 1e-5
    return image.astype(kind)


@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_the_network_has_the_gray_levels_of_the_reports(kind):
    image = _odd_scales(kind)
    levels = gray_levels(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(levels, gray.gray_levels(image), atol=0.05)
    assert levels.min((0, 1, 2)).tolist() == [0] * 5
    assert levels.max((0, 1, 2)).tolist() == [255, 255, 0, 255, 255]
    assert np.median(levels[..., 3]) > 100


@pytest.mark.parametrize("way", ["head", "percentiles"])
def test_the_unit_of_a_channel_makes_no_difference(way):
    generator = np.random.default_rng(0)
    image = np.zeros((3, 64, 64, 2), np.float32)
    image[:, 8:56, 8:56] = generator.normal(100, 20, (3, 48, 48, 2))
    other = image * np.float32([1, 37]) - np.float32([300, 0])
    one, two = (NORMALIZATIONS[way](gray_levels(torch.from_numpy(x))) for x in (image, other))
    torch.testing.assert_close(one, two, atol=0.02, rtol=0)


def test_channels_that_are_not_three_have_the_mean_of_imagenets():
    mean, deviation = imagenet_statistics(4, torch.device("cpu"))
    torch.testing.assert_close(mean, torch.full((4,), 0.449), atol=1e-3, rtol=0)
    torch.testing.assert_close(deviation, torch.full((4,), 0.226), atol=1e-3, rtol=0)
