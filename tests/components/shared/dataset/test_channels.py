import numpy as np
import pytest
from pydantic import ValidationError

from components.shared.dataset.channels import LGG_CHANNELS, Channels
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.gray import black_and_white, gray_levels
from components.shared.dataset.volumes import Volume, encode_volume, map_volume


def test_the_defaults_are_those_of_the_lgg_set():
    assert LGG_CHANNELS.names == ("pre-contrast", "FLAIR", "post-contrast")
    assert (LGG_CHANNELS.reference_index, LGG_CHANNELS.count) == (1, 3)


@pytest.mark.parametrize(
    ("names", "reference", "message"),
    [
        (("T1", "T1"), "T1", "distinct"),
        (("T1",), "FLAIR", "none of the channels T1"),
        ((), "x", ""),
    ],
)
def test_channels_that_disagree_are_refused(names, reference, message):
    with pytest.raises(ValidationError, match=message):
        Channels(names=names, reference=reference)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_any_type_and_number_of_channels_is_stored(tmp_path, dtype):
    image = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype) - 50
    mask = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "volume.safetensors"
    path.write_bytes(encode_volume(Volume(image, mask)).data)
    mapped = map_volume(path)
    assert mapped.image.dtype == dtype
    assert np.array_equal(mapped.image, image)
    assert np.array_equal(mapped.mask, mask)


def test_a_geometry_knows_its_spacing_and_the_size_of_a_voxel():
    affine = np.array([[0, 0, 0.9, -100], [0, -0.8, 0, 120], [5.5, 0, 0, -30], [0, 0, 0, 1]])
    geometry = Geometry.of_affine(affine)
    assert geometry.spacing_mm == (5.5, 0.8, 0.9)
    assert geometry.voxel_ml == pytest.approx(5.5 * 0.8 * 0.9 / 1000)
    assert np.array_equal(geometry.matrix, affine)


def test_gray_levels_of_8_bits_stay_as_they_are():
    image = np.random.default_rng(0).integers(0, 200, (3, 8, 8, 2)).astype(np.uint8)
    assert gray_levels(image) is image


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_gray_levels_do_not_depend_on_scale_and_offset(dtype):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 1000, (4, 64, 64, 2)).astype(dtype)
    levels = gray_levels(image)
    assert levels.dtype == np.float32
    assert (levels.min(), levels.max()) == (0, 255)
    other = gray_levels((image * 8 - 700).astype(dtype))
    assert np.abs(other - levels).max() < 0.1


def test_a_few_hot_voxels_do_not_set_the_scale():
    channel = np.full((4, 64, 64), 100, np.int16)
    channel[:, :8] = 0
    channel[0, 8, :2] = 3000
    black, white = black_and_white(channel)
    assert black == 0
    assert white == pytest.approx(100, abs=1)


def test_a_constant_channel_is_black():
    assert not gray_levels(np.full((2, 4, 4, 1), -7, np.int16)).any()
