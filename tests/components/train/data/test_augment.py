import pytest
import torch

from components.shared.dataset.channels import LGG_CHANNELS, Channels
from components.train.data.augment import Rows, augment
from components.train.recipe import Augmentation

_STILL = Augmentation(
    rotation_degrees=0, scale_factor=0, intensity_shift=0, modality_dropout_prob=0
)


def _all(images):
    return Rows(slice(None), len(images), images.device)


def _batch():
    images = torch.zeros(16, 9, 32, 32)
    images[:, :, 10:20, 12:18] = 1
    return images, images[:, :1].clone()


def test_the_mask_moves_with_its_image():
    images, masks = _batch()
    torch.manual_seed(0)
    settings = Augmentation(intensity_shift=0, modality_dropout_prob=0)
    changed, moved = augment(images, masks, settings, _all(images), LGG_CHANNELS)
    torch.testing.assert_close(changed[:, :1], moved)
    assert not torch.equal(moved, masks)


def test_all_targets_move_with_their_image():
    images, masks = _batch()
    torch.manual_seed(0)
    both = torch.cat([masks, 1 - masks], dim=1)
    _, moved = augment(images, both, Augmentation(elastic_shift=0.1), _all(images), LGG_CHANNELS)
    torch.testing.assert_close(moved[:, :1], 1 - moved[:, 1:])


def test_each_slice_has_its_own_draw():
    torch.manual_seed(0)
    images, masks = _batch()
    _, moved = augment(images, masks, Augmentation(), _all(images), LGG_CHANNELS)
    assert len({tuple(mask.flatten().tolist()) for mask in moved}) == 16


def test_without_changes_only_mirroring_is_left():
    images, masks = _batch()
    torch.manual_seed(0)
    changed, _ = augment(images, masks, _STILL, _all(images), LGG_CHANNELS)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(changed, images, strict=True)]
    mirrored = [
        torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(changed, images, strict=True)
    ]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(same) < 16


def test_a_lost_sequence_is_a_copy_of_flair():
    images = torch.arange(9.0).view(1, 9, 1, 1).expand(64, 9, 8, 8)
    torch.manual_seed(0)
    settings = _STILL.model_copy(update={"modality_dropout_prob": 0.5})
    changed, _ = augment(images, images[:, :1], settings, _all(images), LGG_CHANNELS)
    found = {tuple(slices[:, 4, 4].round().int().tolist()) for slices in changed}
    assert found == {
        (0, 1, 2, 3, 4, 5, 6, 7, 8),
        (1, 1, 2, 4, 4, 5, 7, 7, 8),
        (0, 1, 1, 3, 4, 4, 6, 7, 7),
        (1, 1, 1, 4, 4, 4, 7, 7, 7),
    }


@pytest.mark.parametrize(("count", "place"), [(1, 0), (2, 1), (4, 0)])
def test_any_channels_are_changed_and_the_reference_replaces_lost_ones(count, place):
    names = tuple(f"T{number}" for number in range(count))
    channels = Channels(names=names, reference=names[place])
    images = torch.arange(3.0 * count).view(1, -1, 1, 1).expand(4, -1, 8, 8)
    settings = _STRONG.model_copy(update={"modality_dropout_prob": 1.0})
    torch.manual_seed(0)
    changed, _ = augment(images, images[:, :1], settings, _all(images), channels)
    slices = changed.view(4, 3, count, 8, 8)
    torch.testing.assert_close(slices, slices[:, :, place, None].expand_as(slices))
    assert not torch.allclose(slices[:, 0], slices[:, 1])


def test_each_sequence_has_its_own_brightness():
    images = torch.ones(8, 9, 16, 16)
    bright = _STILL.model_copy(update={"intensity_shift": 0.2})
    torch.manual_seed(0)
    changed, _ = augment(images, images[:, :1], bright, _all(images), LGG_CHANNELS)
    levels = changed[:, :, 8, 8]
    torch.testing.assert_close(levels[:, :3], levels[:, 3:6])
    assert len({round(float(level), 4) for level in levels[:, :3].flatten()}) == 24


_STRONG = Augmentation(elastic_shift=0.05, gamma=1.5, sharpness_shift=0.5, bias_field=0.3)


def test_bending_moves_the_mask_with_its_image_and_no_further_than_told():
    column = torch.linspace(-1, 1, 33).expand(1, 1, 33, 33)
    images = column.expand(16, 9, 33, 33).contiguous()
    bent = _STILL.model_copy(update={"elastic_shift": 0.05})
    torch.manual_seed(0)
    changed, moved = augment(images, (images[:, :1] + 1) / 2, bent, _all(images), LGG_CHANNELS)
    torch.testing.assert_close(changed[:, :1], moved * 2 - 1, rtol=0, atol=1e-5)
    inside = changed[:, 0, 4:-4, 4:-4]
    before = column[0, 0, 4:-4, 4:-4]
    away = torch.minimum((inside - before).abs(), (inside + before).abs())  # or mirrored
    assert 0.03 < away.max() < 0.13  # bicubic overshoots 2 * 0.05 a little
    neighbours = (changed[:, 0, :, 1:] - changed[:, 0, :, :-1]).abs()
    assert neighbours.max() < 0.13  # smooth: one pixel is 0.06


def test_gamma_keeps_least_and_largest_and_the_order():
    ramp = torch.linspace(-2, 3, 32).expand(8, 9, 32, 32).contiguous()
    bowed = _STILL.model_copy(update={"gamma": 2.0})
    torch.manual_seed(0)
    changed, _ = augment(ramp, ramp[:, :1], bowed, _all(ramp), LGG_CHANNELS)
    flat = changed.sort(dim=-1).values
    torch.testing.assert_close(flat[..., 0], ramp[..., 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(flat[..., -1], ramp[..., -1], rtol=0, atol=1e-4)
    middle = flat[:, :3, 16, 16]
    assert len({round(float(value), 3) for value in middle.flatten()}) == 24  # each its own
    assert middle.min() < 0.2
    assert middle.max() > 1.0


def test_shading_is_a_smooth_factor_of_what_is_above_the_least_and_neighbours_share_it():
    images = torch.full((16, 9, 32, 32), 2.0)
    images[..., 0, 0] = images[..., -1, -1] = images[..., 0, -1] = images[..., -1, 0] = -1.0
    shaded = _STILL.model_copy(update={"bias_field": 0.5})
    torch.manual_seed(0)
    changed, masks = augment(images, images[:, :1], shaded, _all(images), LGG_CHANNELS)
    torch.testing.assert_close(masks, images[:, :1])
    factor = (changed + 1) / 3
    torch.testing.assert_close(factor[..., 0, 0], torch.zeros(16, 9), rtol=0, atol=1e-5)
    inside = factor[..., 2:-2, 2:-2]
    assert 1.3 < inside.amax() < 1.6
    assert 0.6 < inside.amin() < 0.75
    assert (inside[..., 1:] - inside[..., :-1]).abs().max() < 0.1
    torch.testing.assert_close(inside[:, :3], inside[:, 3:6])
    assert (inside[:, 0] - inside[:, 1]).abs().amax((-2, -1)).min() > 0.01  # each sequence its own


def test_slices_are_blurred_and_sharpened():
    images, masks = _batch()
    sharp = _STILL.model_copy(update={"sharpness_shift": 0.5})
    torch.manual_seed(0)
    changed, same = augment(images, masks, sharp, _all(images), LGG_CHANNELS)
    assert set(same.unique().tolist()) == {0.0, 1.0}  # the mask is left alone
    assert changed.amax((1, 2, 3)).max() > 1.05
    assert changed.amin((1, 2, 3)).min() < -0.05
    assert any(image.max() <= 1 + 1e-5 and image.min() >= -1e-5 for image in changed)


@pytest.mark.parametrize("settings", [Augmentation(), _STRONG])
def test_a_slice_is_changed_alike_in_a_batch_that_is_dealt_out(settings):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((16, 9, 32, 32), generator=generator)
    masks = (torch.rand((16, 1, 32, 32), generator=generator) > 0.5).float()
    torch.manual_seed(0)
    whole = augment(images, masks, settings, _all(images), LGG_CHANNELS)
    for rows in (slice(1, 8, 2), slice(8, 16, 2)):
        torch.manual_seed(0)
        dealt = augment(
            images[rows], masks[rows], settings, Rows(rows, 16, images.device), LGG_CHANNELS
        )
        for one, other in zip(dealt, whole, strict=True):
            torch.testing.assert_close(one, other[rows], rtol=0, atol=0)
