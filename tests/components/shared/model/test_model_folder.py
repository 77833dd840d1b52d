import json
import os
import pickle
import shutil
import socket
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.shared.dataset.channels import LGG_TARGETS, Target
from components.shared.errors import UserError
from components.shared.model.model_folder import CONFIG_FILE, SCHEMA_VERSION, WEIGHTS_FILE
from components.shared.model.segmenter import load_segmenter

HEAD_BIAS = "network.head.bias"


@pytest.fixture
def folder(tmp_path, threshold_model):
    shutil.copytree(threshold_model(150), tmp_path / "model")
    return tmp_path / "model"


def refusal(folder):
    """The sentence by which a folder is refused, without its beginning."""
    with pytest.raises(UserError) as refused:
        load_segmenter(folder, "cpu")
    message, beginning = str(refused.value), f"model {folder} cannot be loaded: "
    assert message.startswith(beginning)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message.removeprefix(beginning)


def set_config(folder, text):
    (folder / CONFIG_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())


def change_config(folder, section=None, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text())
    (config[section] if section else config).update(changes)
    set_config(folder, json.dumps(config))


def change_weights(folder, **changes):
    weights = load_file(folder / WEIGHTS_FILE) | changes
    save_file(
        {name: tensor for name, tensor in weights.items() if tensor is not None},
        folder / WEIGHTS_FILE,
    )


def write_header(folder, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_model_of_the_oldest_schema_is_loaded_and_predicts_as_ever(stored_model):
    """Weights by these names, and preprocessing by these settings, are stored in the world."""
    segmenter = load_segmenter(stored_model("schema_1"), "cpu")
    assert (segmenter.min_component_fraction, segmenter.threshold) == (0.1, 0.4)
    assert segmenter.parameters == 13_444_298 - 8_393_728  # without an unused stage
    image = np.random.default_rng(1).integers(0, 256, (3, 60, 50, 3), np.uint8)
    (whole,), (flair,) = segmenter(image), segmenter(np.repeat(image[..., 1:2], 3, axis=3))
    assert segmenter.targets == LGG_TARGETS
    np.testing.assert_allclose(whole[:, 30, 25], WHOLE, atol=1e-3)
    np.testing.assert_allclose(flair[:, 30, 25], FLAIR, atol=1e-3)


WHOLE = (0.0393, 0.0538, 0.0679)
FLAIR = (0.8722, 0.8254, 0.9413)


def test_targets_are_stored_only_where_they_are_others(folder):
    assert "targets" not in json.loads((folder / CONFIG_FILE).read_text())
    change_config(folder, targets=[{"name": "core", "labels": [1, 3]}])
    assert load_segmenter(folder, "cpu").targets == (Target(name="core", labels=(1, 3)),)
    change_config(folder, targets=[{"name": name, "labels": [1]} for name in ("a", "b")])
    assert "'network.head.bias' is (1,), expected (2,)" in refusal(folder)
    change_config(folder, targets=[])
    assert "at 'targets'" in refusal(folder)


def test_no_step_needs_the_archive_or_a_network_connection(folder, monkeypatch):
    change_config(folder, "network", architecture="unet", encoder_weights="imagenet")
    monkeypatch.setattr(socket.socket, "connect", None)
    assert "do not fit its network" in refusal(folder)  # so it was built
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe\x00\xd8", "is not valid JSON"),
        (b"[" * 60_000, "is not valid JSON"),
        (b'{"a":' * 10_000, "is not valid JSON"),
        (b'{"schema_version": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b'{"schema_version": NaN}', "is not valid JSON: expected value"),
        (b" " * 2**16 + b"{}", "has more than 65536 bytes"),
        (b"[1]", "is not an object"),
        (b'{"schema_version": 2}', "at 'brainseg_version': Field required"),
    ],
)
def test_another_configuration_is_refused(folder, text, reason):
    set_config(folder, text)
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    ("section", "change", "reason"),
    [
        (None, {"threshold": 1.5}, "1.5 at 'threshold'"),
        (None, {"threshold": "half"}, "'half' at 'threshold'"),
        (None, {"channels": ["T1"]}, "reference 'FLAIR' is none of the channels T1"),
        (None, {"channels": {"names": ["a/b"], "reference": "a/b"}}, "'a/b' at 'channels.names.0'"),
        (None, {"brainseg_version": "9" * 51}, "at 'brainseg_version'"),
        (None, {"pickle": "x"}, "at 'pickle'"),
        ("network", {"min_component_fraction": 2}, "2 at 'network.min_component_fraction'"),
        ("network", {"image_size": 10**9}, "1000000000 at 'network.image_size'"),
        ("network", {"architecture": "os.system"}, "'os.system' at 'network.architecture'"),
        ("network", {"architecture": "unet", "encoder": "x\ny"}, "is not known"),
        ("network", {"architecture": "unet", "encoder": "tu-hf-hub:a/b"}, "is not known"),
        ("network", {"architecture": "unet", "encoder": "tu-/etc/passwd"}, "is not known"),
        ("network", {"architecture": "os:system"}, "BRAINSEG_ALLOWED_NETWORKS=os:system"),
        ("network", {"context_slices": 1}, "encoder.0.conv1.weight' is (32, 3, 3, 3), expected"),
        ("network", {"encoder_depth": 4}, "do not fit its network"),
        (
            "network",
            {"architecture": "unet", "encoder_depth": 3, "decoder_channels": [10**5] * 3},
            # where the system promises more memory than there is, as on a node of Kubernetes
            "no network unet with encoder resnet18: |describes a larger network than its weights",
        ),
        (
            "network",
            {"architecture": "unet", "encoder_depth": 3, "decoder_channels": [10**4] * 3},
            "describes a larger network than its weights are",
        ),
    ],
)
def test_settings_that_are_no_networks_are_refused(folder, section, change, reason):
    change_config(folder, section, **change)
    message = refusal(folder)
    assert any(one in message for one in reason.split("|"))


@pytest.mark.parametrize("version", [0, 3, "1", None, [1], {"a": 1}])
def test_another_schema_is_refused_with_both_versions_and_what_to_do(folder, version):
    change_config(folder, schema_version=version, brainseg_version="9.9")
    message = refusal(folder)
    assert f"it has schema version {version!r} (of brainseg '9.9')" in message
    assert f"reads schema version 1 to {SCHEMA_VERSION}; train the model again" in message


def test_a_model_of_brainseg_0_1_is_refused_likewise(folder):
    shutil.rmtree(folder / "segmenter")
    (folder / "data").mkdir()
    (folder / "data" / "model.pt2").write_bytes(b"PK")
    message = refusal(folder)
    assert "only a torch.export archive (of brainseg 0.1.0)" in message
    assert "train the model again with this version, or use the version that stored it" in message


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_truncated_weights_are_refused(folder, size):
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:size])
    assert "its model.safetensors is damaged" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    change_weights(folder, **{HEAD_BIAS: torch.tensor([value])})
    assert refusal(folder) == f"its weights {HEAD_BIAS} hold NaN or infinity"


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (None, "'network.head.bias' is missing, expected (1,)"),
        (torch.zeros(2), "'network.head.bias' is (2,), expected (1,)"),
        (torch.zeros(0), "'network.head.bias' is (0,), expected (1,)"),
        (torch.zeros(1, dtype=torch.float16), "are torch.float16, not torch.float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, tensor, reason):
    change_weights(folder, **{HEAD_BIAS: tensor})
    assert reason in refusal(folder)


def test_weights_that_the_network_lacks_are_refused(folder):
    change_weights(folder, **{"a\nbrainseg error: b": torch.zeros(1)})
    assert "'a\\nbrainseg error: b' is (1,), expected none" in refusal(folder)


@pytest.mark.parametrize(
    "header",
    [
        {HEAD_BIAS: {"dtype": "F32", "shape": [10 * 2**28], "data_offsets": [0, 10 * 2**30]}},
        {HEAD_BIAS: {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}},
        {HEAD_BIAS: {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {HEAD_BIAS: {"dtype": "F32", "shape": [1], "data_offsets": [100, 104]}},
        {HEAD_BIAS: {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
        {"../../escaped": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff" * 16,
    ],
    ids=["10 GB", "overflow", "negative", "outside", "text", "path", "deep", "deeper", "bytes"],
)
def test_a_header_that_lies_is_refused(folder, header, tmp_path):
    write_header(folder, header, b"\0\0\0\0")
    assert "its model.safetensors is damaged" in refusal(folder) or "do not fit" in refusal(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_not_unpickled(folder, tmp_path, form):
    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "proof"),)

    if form == "pickle":
        (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Planted()))
    else:
        torch.save(Planted(), folder / WEIGHTS_FILE)
    assert "its model.safetensors" in refusal(folder)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, "segmenter"])
def test_links_are_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "target")
    (folder / name).symlink_to(tmp_path / "target")
    assert refusal(folder) == f"its {name.rpartition('/')[2]} is a link"


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_what_would_block_is_refused(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refusal(folder) == f"its {name.rpartition('/')[2]} is not a file"


@pytest.mark.parametrize("name", ["MLmodel", "requirements.txt", "data/model.pt2", "code/x.py"])
def test_no_other_file_of_the_folder_is_read(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x00 !!python/object/apply:os.system [x]")
    load_segmenter(folder, "cpu")


def test_hostile_folders_take_little_memory(folder, tmp_path, load_with_little_memory):
    """A file of 10 GB with holes, headers that declare 10 GB, and giant networks."""
    folders = [folder]

    def hostile(name):
        folders.append(shutil.copytree(folder, tmp_path / name))
        return folders[-1]

    large = {HEAD_BIAS: {"dtype": "F32", "shape": [10 * 2**28], "data_offsets": [0, 10 * 2**30]}}
    write_header(hostile("declared"), large)
    write_header(hostile("sparse"), large)
    os.truncate(folders[-1] / WEIGHTS_FILE, 10 * 2**30 + 8 + len(json.dumps(large)))
    (hostile("header") / WEIGHTS_FILE).write_bytes(struct.pack("<Q", 10 * 2**30))
    os.truncate(folders[-1] / WEIGHTS_FILE, 11 * 2**30)
    os.truncate(hostile("config") / CONFIG_FILE, 10 * 2**30)
    for number, width in enumerate((10**4, 10**5, 10**9)):
        widths = {"decoder_channels": [width] * 3, "encoder_depth": 3}
        change_config(hostile(f"wide{number}"), "network", architecture="unet", **widths)
    giant = {"architecture": "unet", "encoder": "tu-eva_giant_patch14_224"}
    change_config(hostile("giant"), "network", **giant)

    good, *refused = load_with_little_memory(folders)
    assert good["error"] is None
    assert all("cannot be loaded: its" in one["error"] for one in refused)
    assert sum(one["mb"] for one in refused) < 1500


@pytest.mark.parametrize("members", [0, 51, "many"])
def test_a_wrong_number_of_members_is_refused(folder, members):
    change_config(folder, members=members)
    assert f"its config.json has {members!r} at 'members'" in refusal(folder)


def test_members_without_weights_are_refused(folder):
    change_config(folder, members=2)
    assert "its weights do not fit its network" in refusal(folder)
