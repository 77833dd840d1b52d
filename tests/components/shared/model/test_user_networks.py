import sys

import pytest
import torch

from components.shared.dataset.channels import Channels
from components.shared.errors import UserError
from components.shared.model.model_folder import write_segmenter
from components.shared.model.network import ReferenceOnly, build_segmenter
from components.shared.model.segmenter import load_segmenter
from components.shared.model.settings import Network
from components.shared.model.user_networks import ALLOWED

MODULE = """
import pathlib

import torch
from torch import nn

pathlib.Path(__file__).with_name("imported").touch()


def small(in_channels, classes, encoder_depth, *, width=4):
    assert encoder_depth == 3
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, classes, 1))


def greedy(in_channels, dropout):
    pass


def halving(in_channels, classes):
    return nn.Conv2d(in_channels, classes, 2, stride=2)


def many(in_channels, classes):
    return nn.Conv2d(in_channels, classes + 1, 1)


def broken(in_channels):
    raise ValueError("no luck")


def nothing(in_channels):
    return None


number = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """An importable module of a user's, in which every function is allowed."""
    (tmp_path / "their_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("small", "greedy", "halving", "many", "broken", "nothing", "number", "absent")
    monkeypatch.setenv(ALLOWED, "gone.nets:small, " + ",".join(f"their_nets:{n}" for n in names))
    yield tmp_path
    sys.modules.pop("their_nets", None)


def network(function, **changes):
    values = {"encoder_depth": 3, "image_size": 32, "context_slices": 1, **changes}
    return Network(architecture=f"their_nets:{function}", **values)


def test_a_function_gets_the_settings_that_it_wants(nets):
    segmenter = build_segmenter(network("small"))
    assert segmenter.network[0].in_channels == 9
    four = Channels(names=("T1", "T1c", "T2", "FLAIR"))
    assert build_segmenter(network("small"), channels=four).network[0].in_channels == 12
    flair = build_segmenter(network("small", sequences="reference", context_slices=0))
    assert isinstance(flair.network, ReferenceOnly)
    assert flair.network.network[0].in_channels == 1


def test_its_model_folder_is_stored_and_loaded(nets, tmp_path):
    segmenter = build_segmenter(network("small")).eval()
    (tmp_path / "model").mkdir()
    write_segmenter(segmenter, tmp_path / "model")
    volume = torch.randint(0, 256, (3, 40, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = segmenter(volume)
    stored = torch.from_numpy(load_segmenter(tmp_path / "model", "cpu")(volume.numpy())[0])
    torch.testing.assert_close(stored, expected)


@pytest.mark.parametrize("allowed", [None, "", "their_nets", "their_nets:smaller", "nets:small"])
def test_what_is_not_allowed_is_not_imported(nets, monkeypatch, tmp_path, allowed):
    segmenter = build_segmenter(network("small"))
    (tmp_path / "model").mkdir()
    write_segmenter(segmenter, tmp_path / "model")
    (nets / "imported").unlink()
    sys.modules.pop("their_nets")
    monkeypatch.delenv(ALLOWED) if allowed is None else monkeypatch.setenv(ALLOWED, allowed)
    message = rf"is not allowed: .*, set {ALLOWED}=their_nets:small where the steps run$"
    with pytest.raises(
        UserError, match=rf"train\.network\.architecture=their_nets:small {message}"
    ):
        build_segmenter(network("small"))
    with pytest.raises(
        UserError, match=rf"model .* network cannot be built: network\..* {message}"
    ):
        load_segmenter(tmp_path / "model", "cpu")
    assert not (nets / "imported").exists()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", r"their_nets:absent cannot be imported \(module 'their_nets' has no attribute"),
        ("number", "their_nets:number is int, not a function or class"),
        (
            "greedy",
            "their_nets:greedy requires dropout; .* can be in_channels, classes, architecture",
        ),
        ("nothing", "their_nets:nothing returned NoneType, not a torch.nn.Module"),
        ("broken", "train.network: no network their_nets:broken: no luck"),
        ("halving", "returns 1 x 1 x 16 x 16 for a slice of 32 x 32, not 1 x 1 x 32 x 32"),
        ("many", "returns 1 x 2 x 32 x 32 for a slice of 32 x 32, not 1 x 1 x 32 x 32"),
    ],
)
def test_what_is_no_network_is_refused(nets, function, message):
    with pytest.raises(UserError, match=message):
        build_segmenter(network(function))


def test_a_package_that_is_not_installed_is_named(nets):
    with pytest.raises(UserError, match=r"gone\.nets:small cannot be imported \(No module named"):
        build_segmenter(Network(architecture="gone.nets:small"))


@pytest.mark.parametrize(
    "name", ["unett", "their_nets", "their_nets:", ":f", "a b:c", "a:b.c", "a:b:c"]
)
def test_another_form_is_no_architecture(name):
    with pytest.raises(ValueError, match=r"Input should be 'unet', .* or package\.module:function"):
        Network(architecture=name)
