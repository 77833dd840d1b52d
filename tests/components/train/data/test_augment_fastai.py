import pytest
import torch

from components.shared.model.preparation import NORMALIZATIONS, imagenet_statistics
from components.train.data import augment_fastai
from components.train.data.augment_fastai import augment_as_fastai


def _batch(count):
    volume = torch.zeros(count, 64, 64, 3, dtype=torch.uint8)
    volume[:, 20:44, 12:30] = 200
    masks = torch.zeros(count, 1, 64, 64)
    masks[:, :, 20:44, 12:30] = 1
    return NORMALIZATIONS["imagenet"](volume), masks


def test_mask_and_image_move_together():
    images, masks = _batch(16)
    changed, moved = augment_as_fastai(images, masks, torch.rand(16), 3)
    assert changed.shape == images.shape
    assert moved.shape == masks.shape
    bright = changed[:, :1] > changed.amin((1, 2, 3), keepdim=True).add(1)
    assert (bright == (moved > 0.5)).float().mean() > 0.98
    assert (moved != masks).any((1, 2, 3)).float().mean() > 0.8


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_channels_are_changed_and_neighbours_alike(count):
    images, masks = _batch(4)
    stack = images[:, :1].expand(-1, 3 * count, -1, -1)
    changed, _ = augment_as_fastai(stack, masks, torch.rand(4), count)
    assert changed.shape == stack.shape
    torch.testing.assert_close(changed[:, :count], changed[:, 2 * count :], rtol=0, atol=0)


def test_a_mask_moves_between_pixels_as_its_image_does(monkeypatch):
    """By whole pixels its Dice with the moved image was 0.98 on average and 0.96 at worst."""
    monkeypatch.setattr(augment_fastai, "_COLOR", torch.nn.Identity())
    _, masks = _batch(64)
    mean, deviation = (one.view(3, 1, 1) for one in imagenet_statistics(3, masks.device))
    changed, moved = augment_as_fastai((masks - mean) / deviation, masks, torch.rand(64), 3)
    torch.testing.assert_close(changed * deviation + mean, moved.expand_as(changed))


def test_what_is_done_to_a_slice_hangs_on_its_draw_alone():
    images, masks = _batch(4)
    draws = torch.rand(4)
    whole, _ = augment_as_fastai(images, masks, draws, 3)
    part, _ = augment_as_fastai(images[1::2], masks[1::2], draws[1::2], 3)
    torch.testing.assert_close(part, whole[1::2], rtol=0, atol=0)


def test_neighbours_are_changed_as_their_slice_is():
    images, masks = _batch(2)
    changed, _ = augment_as_fastai(images.repeat(1, 3, 1, 1), masks, torch.rand(2), 3)
    torch.testing.assert_close(changed[:, :3], changed[:, 6:], rtol=0, atol=0)


def test_some_slices_stay_as_they_were():
    """A quarter of the chances miss: about one slice in five hundred is not changed at all."""
    images, masks = _batch(1)
    for seed in range(3000):
        changed, _ = augment_as_fastai(
            images[:, :, ::4, ::4], masks[:, :, ::4, ::4], torch.tensor([seed / 3000]), 3
        )
        if torch.allclose(changed, images[:, :, ::4, ::4], atol=1e-4):
            return
    raise AssertionError("every slice was changed")
