import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components.shared.errors import UserError
from components.shared.model.weights_file import read_weights

WEIGHTS = OrderedDict(one=torch.arange(3.0), two=torch.ones(2, 2))


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"epoch": 3, "state_dict": WEIGHTS, "optimizer": {"lr": torch.zeros(())}},  # Lightning's
    ],
)
def test_a_state_dict_is_read_alone_and_in_a_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    found = read_weights(tmp_path / "weights.pth", "here")
    assert list(found) == ["one", "two"]
    torch.testing.assert_close(found, dict(WEIGHTS))


def test_safetensors_need_no_name_of_their_kind(tmp_path):
    save_file(WEIGHTS, tmp_path / "weights")
    torch.testing.assert_close(read_weights(tmp_path / "weights", "here"), dict(WEIGHTS))


class Runs:
    """Runs code when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("form", "message"),
    [("torch", "hold Python objects besides tensors"), ("pickle", "nor a state dict of torch")],
)
def test_code_in_a_file_is_refused_and_not_run(tmp_path, form, message):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    content = {**WEIGHTS, "more": Runs(trace)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=f"^weights here .*{message}"):
        read_weights(path, "here")
    assert not trace.exists()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("<!doctype html><html>"), "this is a web page or XML"),
        (lambda path: path.write_text("version https://git-lfs"), "truncated, or neither safete"),
        (lambda path: path.write_bytes(b""), "are truncated, or neither safetensors nor"),
        (lambda path: (torch.save(WEIGHTS, path), _cut(path)), "truncated, or neither safete"),
        (lambda path: (save_file(WEIGHTS, path), _cut(path)), "are truncated or damaged"),
        (lambda path: torch.save({"epoch": 1}, path), "there are no tensors in it"),
    ],
)
def test_what_is_no_weights_is_refused_in_a_sentence(tmp_path, write, message):
    write(tmp_path / "file")
    with pytest.raises(UserError, match=f"^weights here.*{message}"):
        read_weights(tmp_path / "file", "here")
