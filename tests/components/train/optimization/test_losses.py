import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from components.train.optimization.losses import loss_of


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(4, 1, 8, 8), (torch.rand(4, 1, 8, 8) - 0.3).clamp(min=0)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("bce", nn.BCEWithLogitsLoss()),
        ("dice", smp.losses.DiceLoss(mode="binary", from_logits=True)),
    ],
)
def test_a_loss_is_the_library_s(batch, name, theirs):
    torch.testing.assert_close(loss_of(name, *batch), theirs(*batch))


def test_losses_add_up(batch):
    both = loss_of("bce", *batch) + loss_of("dice", *batch)
    torch.testing.assert_close(loss_of("bce+dice", *batch), both)


def test_no_tumour_asks_nothing_of_the_dice():
    logits = torch.randn(2, 1, 8, 8)
    assert loss_of("dice", logits, torch.zeros_like(logits)) == 0


def test_two_halves_have_the_dice_of_the_whole(batch):
    logits, masks = batch

    def add_up(sums):
        probability = logits[2:].sigmoid()
        difference = (probability - masks[2:]).abs().sum()
        other = (difference, probability.sum(), masks[2:].sum())
        return sums + torch.stack(other)

    half = loss_of("dice", logits[:2], masks[:2], add_up)
    torch.testing.assert_close(half, loss_of("dice", logits, masks))
