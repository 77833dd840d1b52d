import pytest

from components.shared.model.settings import Network


def test_decoder_channels_need_a_decoder_with_stages():
    with pytest.raises(ValueError, match="fpn has none"):
        Network(architecture="fpn", decoder_channels=(16, 16, 16, 16, 16))


def test_decoder_channels_are_as_many_as_stages():
    with pytest.raises(ValueError, match="2 widths for 5 stages"):
        Network(decoder_channels=(16, 16))


def test_plain_unet_has_no_imagenet_weights():
    with pytest.raises(ValueError, match="encoder_weights=none"):
        Network(architecture="plain_unet")
