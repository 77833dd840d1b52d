import logging

import pytest
import torch
from torch import nn

from components.shared.dataset.channels import LGG_CHANNELS, Channels
from components.shared.errors import UserError
from components.shared.model.model_folder import SegmenterConfig
from components.shared.model.network import PairedSegmenter, build_segmenter
from components.shared.model.pretrained import adapt_channels, load_encoder, load_network
from tests.components.conftest import REGIONS


def _encoder(channels=3, width=4):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, 6, 3),
        nn.Linear(6, 2),
    )


def _random(module):
    torch.manual_seed(1)
    return {name: torch.rand(tensor.shape) for name, tensor in module.state_dict().items()}


def _same(module, weights):
    """Asserts that all tensors are those of the weights, whatever their names."""
    values = [value for name, value in weights.items() if "num_batches" not in name]
    own = [value for name, value in module.state_dict().items() if "num_batches" not in name]
    torch.testing.assert_close(own, values[: len(own)])


@pytest.mark.parametrize("prefix", ["", "module.", "model.encoder.", "network.backbone.body."])
def test_names_match_after_any_prefix(prefix):
    encoder, weights = _encoder(), _random(_encoder())
    others = {"head.weight": torch.ones(1), "module.encoder.0.weight": torch.ones(2)}
    load_encoder(encoder, others | {prefix + name: one for name, one in weights.items()}, "here")
    _same(encoder, weights)


def test_other_names_match_in_the_order_of_definition_and_the_log_has_the_rest(caplog):
    caplog.set_level(logging.INFO)
    encoder, weights = _encoder(), _random(_encoder())
    names = [f"_layer{number}.{name[2:]}" for number, name in enumerate(weights)]
    renamed = dict(zip(names, weights.values(), strict=True)) | {"_fc.bias": torch.ones(10)}
    load_encoder(encoder, renamed, "here")
    _same(encoder, weights)
    assert "weights here: 10 of the encoder's 10 tensors match, in the order of" in caplog.text
    assert "in the file, not used: _fc.bias" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: dict(reversed(weights.items())),
        lambda weights: dict(list(weights.items())[1:]),
        # of equal shapes, but a bias in place of a weight
        lambda weights: {name.replace("weight", "bias"): one for name, one in weights.items()},
    ],
)
def test_another_order_is_not_taken_for_the_same(change):
    weights = {f"_layer{name}": one for name, one in _random(_encoder()).items()}
    with pytest.raises(
        UserError, match=r"^weights here fit 0 of the encoder's 10 tensors, at least"
    ):
        load_encoder(_encoder(), change(weights), "here")


def test_weights_of_another_network_are_refused_with_examples():
    encoder = _encoder()
    before = {name: one.clone() for name, one in encoder.state_dict().items()}
    with pytest.raises(UserError) as refused:
        load_encoder(encoder, _random(_encoder(width=5)), "here")
    assert "fit 3 of the encoder's 10 tensors, at least 95% must" in str(refused.value)
    assert "it has e.g. 0.weight (4 x 3 x 3 x 3), 0.bias (4)" in str(refused.value)
    assert "the file 0.weight (5 x 3 x 3 x 3), 0.bias (5)" in str(refused.value)
    torch.testing.assert_close(dict(encoder.state_dict()), before)


def test_weights_that_are_no_numbers_are_refused():
    weights = _random(_encoder())
    weights["2.bias"][0] = torch.nan
    with pytest.raises(UserError, match=r"^weights here hold NaN or infinity, e\.g\. in 2\.bias"):
        load_encoder(_encoder(), weights, "here")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("given", [1, 3, 4])
def test_the_first_convolution_fits_any_number_of_channels(channels, given):
    encoder, weights = _encoder(channels), _random(_encoder(given))
    load_encoder(encoder, weights, "here")
    image = torch.rand(1, 1, 5, 5)
    expected = nn.functional.conv2d(image.expand(1, given, 5, 5), weights["0.weight"])
    found = nn.functional.conv2d(image.expand(1, channels, 5, 5), encoder[0].weight)
    torch.testing.assert_close(found, expected)


def test_channels_are_repeated_as_the_library_does():
    weight = torch.rand(4, 3, 3, 3)
    torch.testing.assert_close(adapt_channels(weight, 9), torch.cat([weight] * 3, dim=1) / 3)
    torch.testing.assert_close(adapt_channels(weight, 1), weight.sum(1, keepdim=True))


def _config(segmenter):
    return SegmenterConfig(
        brainseg_version="1",
        channels=segmenter.channels,
        targets=segmenter.targets,
        network=segmenter.settings,
    ).model_dump_json()


def test_a_network_starts_from_an_earlier_model_of_the_same_architecture(make_network):
    earlier = build_segmenter(make_network())
    later = build_segmenter(make_network(), targets=REGIONS)
    message = "models:/m/1: targets are tumour there and whole, core, enhancing here; .*; use a "
    with pytest.raises(UserError, match=message):
        load_network(later, earlier.state_dict(), _config(earlier), "models:/m/1")
    message = "targets are whole, core, enhancing there and tumour here; "
    with pytest.raises(UserError, match=message):
        load_network(earlier, later.state_dict(), _config(later), "models:/m/1")
    others = build_segmenter(make_network(), targets=REGIONS[::-1])
    load_network(others, later.state_dict(), _config(later), "models:/m/1")


def test_each_of_two_networks_starts_from_its_own(make_network):
    flair = make_network(**{"sequences": "reference"})
    pair = PairedSegmenter(build_segmenter(make_network()), build_segmenter(flair))
    later = build_segmenter(flair)
    load_network(later, pair.state_dict(), "", "models:/m/1")
    torch.testing.assert_close(dict(later.state_dict()), dict(pair.flair.state_dict()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context_slices": 0}, "context_slices is 0 there and 1 here; network.encoder."),
        # as many channels, of one sequence
        ({"sequences": "reference", "context_slices": 1}, "sequences is reference there and all"),
        ({"architecture": "fpn", "decoder_channels": None}, "architecture is fpn there and unet"),
        ({}, "channels are T1, FLAIR, T2 there and pre-contrast, FLAIR, post-contrast here"),
        ({"decoder_channels": (16, 16, 8, 8, 16)}, r"network.decoder.* is 16.* there and 8"),
    ],
)
def test_another_architecture_is_refused_with_the_differences(make_network, change, message):
    channels = Channels(names=("T1", "FLAIR", "T2")) if change == {} else LGG_CHANNELS
    earlier = build_segmenter(make_network(**change), channels=channels)
    with pytest.raises(
        UserError, match=rf"^the network cannot start from models:/m/1: .*{message}"
    ):
        load_network(
            build_segmenter(make_network()), earlier.state_dict(), _config(earlier), "models:/m/1"
        )
