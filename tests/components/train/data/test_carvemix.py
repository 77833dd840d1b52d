import pytest
import torch

from components.train.data.carvemix import LARGEST_MARGIN, LEAST_MARGIN, paste_tumour

SIDE = 64


@pytest.fixture
def host():
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 30:50, 30:50] = 1
    return torch.full((6, SIDE, SIDE), -2.0).half(), mask


@pytest.fixture
def donor():
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 10:20, 10:20] = 1
    mask[0, 20, 10:20] = 0.25  # a pixel that is covered in part
    return torch.full((6, SIDE, SIDE), 3.0).half(), mask


@pytest.mark.parametrize("margin", [LEAST_MARGIN, LARGEST_MARGIN])
def test_the_tumour_comes_with_its_margin_and_the_rest_stays(host, donor, margin):
    image, mask = paste_tumour(*host, *donor, margin)
    reach = round(margin * SIDE)
    assert (image[:, 10:20, 10:20] == donor[0][:, 10:20, 10:20]).all()
    assert (image[:, 20 + reach // 2, 15] > 0).all()
    far = 20 + reach + 3  # half of the edge further
    assert (image[:, far:] == host[0][:, far:]).all()
    assert (image[:, :, far:] == host[0][:, :, far:]).all()
    assert image.dtype == torch.float16
    assert image.shape == host[0].shape
    assert mask.shape == host[1].shape


def test_all_targets_of_the_donor_come_with_it(host, donor):
    (image, mask), (donor_image, donor_mask) = host, donor
    masks, donor_masks = torch.cat([mask, mask]), torch.cat([donor_mask * 0, donor_mask])
    pasted, found = paste_tumour(image, masks, donor_image, donor_masks, LEAST_MARGIN)
    alone = paste_tumour(*host, *donor, LEAST_MARGIN)
    torch.testing.assert_close(pasted, alone[0])
    torch.testing.assert_close(found, torch.cat([mask, alone[1]]))


def test_within_the_margin_tumour_is_what_it_is_in_the_donor(host, donor):
    _, mask = paste_tumour(*host, *donor, LARGEST_MARGIN)
    assert mask[0, 10:20, 10:20].eq(1).all()
    assert mask[0, 20, 10:20].eq(0.25).all()
    assert mask[0, 29, 29] == 0  # of neither
    assert mask[0, 30, 29] == 0
    assert mask[0, 30, 30] == 0  # the host's tumour has lost a corner to the margin
    assert mask[0, 31:50, 31:50].eq(1).all()


def test_what_is_pasted_changes_neither_slice(host, donor):
    before = [part.clone() for part in (*host, *donor)]
    paste_tumour(*host, *donor, LARGEST_MARGIN)
    assert all(torch.equal(one, two) for one, two in zip(before, (*host, *donor), strict=True))


def test_a_donor_of_soft_edges_alone_gives_nothing(host, donor):
    image, mask = paste_tumour(*host, donor[0], donor[1] * 0.4, LARGEST_MARGIN)
    assert torch.equal(image, host[0])
    assert torch.equal(mask, host[1])
