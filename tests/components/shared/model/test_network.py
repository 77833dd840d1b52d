from typing import get_args

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from components.shared.dataset.channels import Channels
from components.shared.errors import UserError
from components.shared.model.model_folder import write_segmenter
from components.shared.model.network import (
    PairedSegmenter,
    build_segmenter,
    freeze_unused,
    with_neighbours,
)
from components.shared.model.segmenter import load_segmenter
from components.shared.model.settings import Architecture
from components.train.export import export_segmenter
from tests.components.conftest import REGIONS


def test_brightness_and_contrast_of_a_scanner_make_no_difference(make_network):
    generator = np.random.default_rng(0)
    dim = np.zeros((3, 64, 64, 3), np.uint8)
    dim[:, 8:56, 8:56] = generator.integers(50, 100, (3, 48, 48, 3))
    segmenter = build_segmenter(make_network())
    once = segmenter.prepare(torch.from_numpy(dim))[:, :, 4:28, 4:28]
    twice = segmenter.prepare(torch.from_numpy(dim * 2))[:, :, 4:28, 4:28]
    torch.testing.assert_close(once, twice, atol=1e-4, rtol=1e-4)


def test_neighbours_are_the_slices_before_and_after():
    slices = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    stacked = with_neighbours(slices, 2)
    assert stacked.shape == (4, 15, 2, 2)
    assert stacked[:, ::3, 0, 0].tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 3],
        [1, 2, 3, 3, 3],
    ]


@pytest.mark.parametrize("shape", [(2, 32, 32), (5, 48, 40), (3, 20, 100)])
def test_a_volume_of_any_size_gives_a_probability_a_voxel(make_network, shape):
    volume = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    with torch.inference_mode():
        probability = build_segmenter(make_network()).eval()(volume)
    assert probability.shape == shape
    assert probability.dtype == torch.float32
    assert 0 <= probability.min() <= probability.max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet19"}, r"train.network.encoder='resnet19' is not known \(nearest: resn"),
        (  # smp refuses by a KeyError
            {"architecture": "linknet", "encoder": "mit_b0"},
            "no network linknet with encoder mit_b0: ",
        ),
        (  # timm by a RuntimeError
            {"encoder": "tu-mixer_s32_224"},
            "no network unet with encoder tu-mixer_s32_224: ",
        ),
        (  # by an IndexError
            {"encoder": "tu-nest_tiny", "image_size": 224},
            "no network unet with encoder tu-nest_tiny: list index out of range",
        ),
        (  # and by an AssertionError once it is shown a slice
            {"architecture": "upernet", "encoder": "tu-swin_tiny_patch4_window7_224"},
            "upernet with encoder tu-swin_tiny_patch4_window7_224 cannot take slices of 32 x 32 "
            r"\(.*\(224\).*\); try another",
        ),
    ],
)
def test_an_impossible_network_is_named(make_network, change, message):
    network = {"decoder_channels": None, **change}
    with pytest.raises(UserError, match=message):
        build_segmenter(make_network(**network))


@pytest.mark.parametrize("architecture", ["unet", "unetplusplus", "manet"])
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_a_decoder_without_widths_has_the_librarys_first_ones(make_network, architecture, depth):
    network = {"architecture": architecture, "encoder_depth": depth, "decoder_channels": None}
    with torch.device("meta"):
        made = build_segmenter(make_network(**network)).network
    assert made.segmentation_head[0].in_channels == (256, 128, 64, 32, 16)[depth - 1]


@pytest.fixture
def build_both(make_network, monkeypatch):
    """Builds a segmenter without the modules that it does not use, and one with them."""

    def build(**settings):
        network = make_network(**settings)
        torch.manual_seed(0)
        small = build_segmenter(network).eval()
        with monkeypatch.context() as patch:
            patch.setattr("components.shared.model.network._drop_unused", lambda *_: None)
            torch.manual_seed(0)
            return small, build_segmenter(network).eval()

    return build


_UNUSED = [
    {"encoder": "resnet18", "encoder_depth": 4, "decoder_channels": (16, 16, 8, 8)},
    {"encoder": "mobilenet_v2", "encoder_depth": 3, "decoder_channels": (16, 8, 8)},
    {"encoder": "efficientnet-b0", "encoder_depth": 4, "decoder_channels": (16, 8, 8, 8)},
]


@pytest.mark.parametrize("settings", _UNUSED, ids=lambda one: one["encoder"])
def test_stages_after_the_encoders_depth_are_left_out(build_both, settings):
    small, whole = build_both(**settings)
    assert small.state_dict().keys() < whole.state_dict().keys()
    volume = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(small(volume), whole(volume))


def test_nothing_is_left_out_of_a_network_that_uses_all(build_both):
    small, whole = build_both(encoder="resnet18", encoder_depth=5)
    assert small.state_dict().keys() == whole.state_dict().keys()


def test_a_model_of_0_2_that_holds_unused_stages_is_loaded(build_both, tmp_path):
    small, whole = build_both(**_UNUSED[0])
    write_segmenter(whole, tmp_path)
    loaded = load_segmenter(tmp_path, "cpu")
    assert loaded.parameters == sum(weight.numel() for weight in small.parameters())
    volume = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        np.testing.assert_allclose(loaded(volume.numpy())[0], small(volume).numpy(), atol=1e-5)


def test_weights_that_the_output_does_not_depend_on_are_frozen(make_network):
    """Of a network of the user's: processes that train together would wait for them."""
    segmenter = build_segmenter(make_network())
    segmenter.network.spare = torch.nn.Conv2d(1, 1, 1)
    freeze_unused(segmenter)
    frozen = [name for name, value in segmenter.named_parameters() if not value.requires_grad]
    assert frozen == ["network.spare.weight", "network.spare.bias"]


@pytest.mark.parametrize("normalization", ["head", "percentiles"])
def test_a_network_for_flair_sees_nothing_else(make_network, normalization):
    network = {"sequences": "reference", "context_slices": 1, "normalization": normalization}
    segmenter = build_segmenter(make_network(**network)).eval()
    assert segmenter.network.network.encoder.out_channels[0] == 3
    volume = torch.randint(0, 100, (3, 48, 48, 3), dtype=torch.uint8)
    volume[..., 1] *= 0
    volume[:, 8:40, 8:40, 1] = torch.randint(100, 200, (3, 32, 32), dtype=torch.uint8)
    others = volume.clone()
    others[..., [0, 2]] = torch.randint(0, 256, (3, 48, 48, 2), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(segmenter(volume), segmenter(others), rtol=0, atol=0)
        torch.testing.assert_close(segmenter.box(volume), segmenter.box(others), rtol=0, atol=0)
        stacked = with_neighbours(segmenter.prepare(volume), 1)
        blanked = stacked.clone()
        blanked[:, ::3] = blanked[:, 2::3] = 0
        torch.testing.assert_close(
            segmenter.network(stacked), segmenter.network(blanked), rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("lost", "chosen"), [((), "whole"), ((0,), "flair"), ((2,), "flair"), ((0, 2), "flair")]
)
def test_a_scan_that_lacks_a_sequence_goes_to_the_second_network(make_network, lost, chosen):
    whole = build_segmenter(make_network()).eval()
    flair = build_segmenter(make_network(**{"sequences": "reference"})).eval()
    volume = torch.randint(0, 256, (3, 40, 40, 3), dtype=torch.uint8)
    for sequence in lost:
        volume[..., sequence] = volume[..., 1]
    with torch.inference_mode():
        paired = PairedSegmenter(whole, flair)(volume)
        expected = {"whole": whole, "flair": flair}[chosen](volume)
    torch.testing.assert_close(paired, expected, rtol=0, atol=0)


@pytest.mark.parametrize("names", [("T1",), ("T1", "T1c", "T2", "FLAIR")])
@pytest.mark.parametrize("sequences", ["all", "reference"])
def test_a_librarys_network_of_any_channels_is_stored_and_loaded(
    make_network, tmp_path, names, sequences
):
    channels = Channels(names=names, reference=names[-1], dtype="float32")
    network = make_network(sequences=sequences, context_slices=1)
    segmenter = build_segmenter(network, channels=channels).eval()
    write_segmenter(segmenter, tmp_path)
    volume = np.random.default_rng(0).normal(-500, 90, (3, 40, 40, len(names))).astype(np.float32)
    with torch.inference_mode():
        expected = segmenter(torch.from_numpy(volume)).numpy()
    loaded = load_segmenter(tmp_path, "cpu")
    assert loaded.channels == channels
    np.testing.assert_allclose(loaded(volume, channels=channels)[0], expected, atol=1e-5)
    if sequences == "reference":
        volume[..., :-1] = 3
        np.testing.assert_allclose(loaded(volume)[0], expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["unet", "plain_unet"])
def test_a_network_of_several_targets_is_stored_and_loaded(make_network, tmp_path, architecture):
    plain = {"encoder_depth": 3, "decoder_channels": None}
    network = make_network(architecture=architecture, **(plain if architecture != "unet" else {}))
    segmenter = build_segmenter(network, targets=REGIONS).eval()
    write_segmenter(segmenter, tmp_path)
    volume = torch.randint(0, 256, (4, 40, 36, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = segmenter(volume)
    assert expected.shape == (3, 4, 40, 36)
    loaded = load_segmenter(tmp_path, "cpu")
    assert loaded.targets == REGIONS
    np.testing.assert_allclose(loaded(volume.numpy()), expected.numpy(), atol=1e-5)


def test_a_whole_slice_can_be_taken(make_network):
    segmenter = build_segmenter(make_network(**{"crop": "none"}))
    volume = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    volume[:, 20:40, 20:40] = torch.randint(50, 200, (2, 20, 20, 3), dtype=torch.uint8)
    assert segmenter.box(volume).tolist() == [0, 0, 1, 1]
    prepared = segmenter.prepare(volume)
    assert (prepared[:, :, :10] == prepared[0, :, 0, 0].view(3, 1, 1)).all()


@pytest.mark.parametrize("test_time_flip", [False, True])
def test_with_test_time_flip_a_mirror_image_gets_the_mirror_answer(make_network, test_time_flip):
    torch.manual_seed(0)
    network = {"test_time_flip": test_time_flip}
    segmenter = build_segmenter(make_network(**network)).eval()
    stacked = torch.randn(2, 9, 32, 32)
    with torch.inference_mode():
        difference = segmenter.answer(stacked) - segmenter.answer(stacked.flip(3)).flip(3)
    assert (difference.abs().max() < 1e-5) == test_time_flip


def test_a_recipe_can_ask_for_every_architecture_of_the_library_and_the_papers():
    assert set(get_args(Architecture)) == {*smp.MODEL_ARCHITECTURES_MAPPING, "plain_unet"}


def network_of(make_network, architecture):
    changes = {"architecture": architecture, "encoder": "resnet18", "decoder_channels": None}
    changes |= {"image_size": 128}
    if architecture == "dpt":  # a decoder of vision transformers, which has four stages
        changes |= {"encoder": "tu-vit_tiny_patch16_224", "encoder_depth": 4, "image_size": 224}
    elif architecture == "pspnet":  # enlarges by 8, whatever the depth
        changes |= {"encoder_depth": 3}
    return make_network(**changes)


@pytest.mark.parametrize(
    "architecture",
    [
        # a vision transformer of 224 x 224 takes as long as all others
        pytest.param(name, marks=pytest.mark.slow if name == "dpt" else ())
        for name in sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    ],
)
def test_every_architecture_of_the_library_is_stored_and_loaded(
    make_network, architecture, tmp_path
):
    segmenter = build_segmenter(network_of(make_network, architecture)).eval()
    write_segmenter(segmenter, tmp_path)
    volume = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = segmenter(volume)
    assert expected.shape == (2, 40, 40)
    stored = torch.from_numpy(load_segmenter(tmp_path, "cpu")(volume.numpy())[0])
    torch.testing.assert_close(stored, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(smp.MODEL_ARCHITECTURES_MAPPING))
def test_every_architecture_of_the_library_is_exported(make_network, architecture, tmp_path):
    segmenter = build_segmenter(network_of(make_network, architecture)).eval()
    export_segmenter(segmenter, tmp_path / "model")  # compares what all forms predict
