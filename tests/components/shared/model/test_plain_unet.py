import pytest
import torch

from components.shared.model.plain_unet import PlainUnet


def test_it_has_the_channels_and_the_size_of_the_paper_s():
    """7.76 million weights: those of the authors' own, github.com/mateuszbuda (unet.py)."""
    network = PlainUnet(channels=3, stages=4)
    assert sum(weight.numel() for weight in network.parameters()) == 7_763_041
    assert [block.conv2.out_channels for block in network.encoder] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize("stages", [3, 5])
def test_the_output_is_as_large_as_the_input(stages):
    logits = PlainUnet(channels=9, stages=stages)(torch.zeros(2, 9, 64, 64))
    assert logits.shape == (2, 1, 64, 64)
