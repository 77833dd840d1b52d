import pytest

from components.shared.errors import UserError
from components.shared.model.library import check_encoder, check_weights
from components.shared.model.settings import Network


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-resnet18", "tu-resnet18.a1_in1k"])
def test_encoders_of_both_libraries_and_their_weights_are_known(encoder):
    network = Network(encoder=encoder, encoder_weights="imagenet")
    check_encoder(network, "train.network")
    check_weights(network, "train.network")


@pytest.mark.parametrize("encoder", ["resnet19", "tu-resnet19", "tu-resnet18.nosuch"])
def test_a_misspelt_encoder_is_refused_with_the_nearest(encoder):
    with pytest.raises(UserError, match=r"^here\.encoder='.*' is not known \(nearest: .*resnet18"):
        check_encoder(Network(encoder=encoder), "here")


@pytest.mark.parametrize("encoder", ["dpn92", "tu-mobilenetv2_035"])
def test_an_encoder_without_weights_can_only_begin_with_random_ones(encoder):
    check_weights(Network(encoder=encoder, encoder_weights="none"), "here")
    with pytest.raises(UserError, match=rf"^here\.encoder={encoder} has no ImageNet weights"):
        check_weights(Network(encoder=encoder, encoder_weights="imagenet"), "here")


def test_a_network_without_encoder_is_not_asked_for_one():
    check_encoder(
        Network(architecture="plain_unet", encoder="any", encoder_weights="none"), "train.network"
    )
