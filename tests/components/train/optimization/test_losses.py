import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from components.shared.config import parse_config
from components.shared.errors import UserError
from components.train.optimization.losses import BatchLoss
from components.train.recipe import Recipe


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(4, 1, 8, 8), (torch.rand(4, 1, 8, 8) - 0.3).clamp(min=0)


def loss_of(text):
    recipe = parse_config(Recipe, f"optimizer: {{loss: {text}}}", "train")
    return BatchLoss(recipe.optimizer.loss)


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("bce", nn.BCEWithLogitsLoss()),
        ("dice", smp.losses.DiceLoss(mode="binary", from_logits=True)),
        ("{name: TverskyLoss, alpha: 0.3}", smp.losses.TverskyLoss(mode="binary", alpha=0.3)),
        ("{name: FocalLoss, gamma: 3}", smp.losses.FocalLoss(mode="binary", gamma=3)),
        ("MCCLoss", smp.losses.MCCLoss()),
        (
            "{name: BCEWithLogitsLoss, pos_weight: 3}",
            nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3)),
        ),
        ("SmoothL1Loss", nn.SmoothL1Loss()),
        ("'torch.nn:MSELoss'", nn.MSELoss()),
    ],
)
def test_a_loss_is_the_library_s(batch, text, theirs):
    torch.testing.assert_close(loss_of(text)(*batch), theirs(*batch))


@pytest.mark.parametrize("text", ["bce+dice", "TverskyLoss", "FocalLoss", "SmoothL1Loss"])
def test_the_loss_of_several_targets_is_the_mean(batch, text):
    others = [(batch[0] * scale, batch[1].flip(0) * scale) for scale in (0.5, 0.25)]
    logits, masks = (torch.cat(parts, dim=1) for parts in zip(batch, *others, strict=True))
    logits = logits.contiguous(memory_format=torch.channels_last)
    each = [loss_of(text)(*pair) for pair in (batch, *others)]
    torch.testing.assert_close(loss_of(text)(logits, masks), torch.stack(each).mean())


def test_losses_add_up(batch):
    bce, dice = loss_of("bce")(*batch), loss_of("dice")(*batch)
    assert loss_of("bce+dice")(*batch) == torch.stack([bce, dice]).sum()  # bit for bit
    tversky = loss_of("TverskyLoss")(*batch)
    weighted = loss_of("[bce, {name: TverskyLoss, weight: 0.25}]")(*batch)
    torch.testing.assert_close(weighted, bce + tversky / 4)


@pytest.mark.parametrize("add_up", [None, lambda sums: 1 * sums])
def test_bce_and_dice_are_what_the_scores_were_measured_with(batch, add_up):
    """Bit for bit, the gradient too."""
    logits, masks = batch
    ours, before = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = loss_of("bce+dice")(ours, masks, add_up)
    probability = before.sigmoid()
    sums = torch.stack([(probability - masks).abs().sum(), probability.sum(), masks.sum()])
    difference, predicted, true = add_up(sums) if add_up else sums
    dice = difference / (predicted + true).clamp(min=1e-7) * (true > 0)
    bce = nn.functional.binary_cross_entropy_with_logits(before, masks)
    expected = torch.stack([bce, dice]).sum()
    loss.backward()
    expected.backward()
    assert loss == expected
    assert torch.equal(ours.grad, before.grad)


def test_no_tumour_asks_nothing_of_the_dice():
    logits = torch.randn(2, 1, 8, 8)
    assert loss_of("dice")(logits, torch.zeros_like(logits)) == 0


def test_two_halves_have_the_dice_of_the_whole(batch):
    logits, masks = batch

    def add_up(sums):
        probability = logits[2:].sigmoid()
        difference = (probability - masks[2:]).abs().sum()
        other = (difference, probability.sum(), masks[2:].sum())
        return sums + torch.stack(other)

    half = loss_of("dice")(logits[:2], masks[:2], add_up)
    torch.testing.assert_close(half, loss_of("dice")(logits, masks))


def test_our_own_losses_leave_no_trace_in_a_stored_state():
    assert not loss_of("bce+dice").state_dict()
    assert list(loss_of("{name: BCEWithLogitsLoss, pos_weight: 2}").buffers())


class Broken(nn.Module):
    """A loss with a wrong result."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, logits, masks):
        if self.kind == "error":
            raise KeyError("lost")
        return {"map": (logits - masks).abs(), "number": 0.5, "constant": masks.mean()}[self.kind]


def broken(kind):
    return f"{{name: '{__name__}:Broken', kind: {kind}}}"


_PLACE = r"^train\.optimizer\.loss="


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Dice", _PLACE + r"Dice is not known \(nearest: dice, DiceLoss\); there are bce, dice, "),
        (
            "{name: TverskyLoss, alhpa: 0.3}",
            _PLACE + r"TverskyLoss does not accept alhpa \(nearest: alpha\); its options: classes,",
        ),
        ("{name: TverskyLoss, mode: binery}", "TverskyLoss with .*mode.*binery"),
        ("{name: dice, smooth: 1}", _PLACE + "dice has no options, not smooth$"),
        ("CTCLoss", _PLACE + r"CTCLoss fails on a small batch: .*called with \(logits, masks\)"),
        ("{name: MSELoss, reduction: none}", r"MSELoss returned \[2, 1, 8, 8\], not a scalar"),
        ("CrossEntropyLoss", "CrossEntropyLoss does not depend on the logits of one class"),
        (broken("error"), "Broken fails on a small batch: 'lost'"),
        (broken("map"), r"Broken returned \[2, 1, 8, 8\], not a scalar tensor"),
        (broken("number"), "Broken returned float, not a scalar tensor"),
        (broken("constant"), "Broken does not depend on the logits"),
        ("'no.such:Loss'", _PLACE + r"no\.such:Loss cannot be imported \(No module named 'no'\)"),
        ("'torch.nn:NoLoss'", _PLACE + r"torch\.nn:NoLoss cannot be imported \(module 'torch.nn'"),
        ("{name: 'os:system', command: 'exit 3'}", "os:system is not a subclass of torch.nn.mod"),
    ],
)
def test_a_wrong_loss_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        loss_of(text)
