import functools
import http.server
import json
import threading
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from components.shared.errors import OutageError, UserError
from components.shared.model.model_folder import WEIGHTS_FILE, write_segmenter
from components.shared.model.network import build_segmenter
from components.shared.model.settings import Network
from components.shared.model.weights_file import read_weights
from components.shared.storage.store import file_digest, open_store
from components.shared.tracking.server import connect, open_experiment
from components.shared.weights.stored import (
    fetch_weights,
    find_weights,
    list_weights,
    require_weights,
    weights_path,
)

WEIGHTS = OrderedDict(one=torch.arange(3.0))
SMALL = Network(architecture="plain_unet", encoder_weights="none", encoder_depth=3, image_size=32)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(WEIGHTS, path)
    return path


@pytest.fixture
def web(tmp_path):
    """Address of a server of the temporary folder, and the requests that it got."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    requests = []
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def test_weights_are_fetched_once_and_then_read_from_the_store(store, file, web, tmp_path):
    address, requests = web
    source = f"{address}/{file.name}"
    first = require_weights(store, source)
    assert first.sha256 == file_digest(file)
    file.unlink()
    assert require_weights(store, source) == find_weights(store, source) == first
    assert len(requests) == 1
    found = read_weights(weights_path(store, first, tmp_path / "cache"), source)
    torch.testing.assert_close(found, dict(WEIGHTS))
    assert list_weights(store) == [first]


def test_a_changed_file_on_this_machine_is_read_again(store, file):
    first = require_weights(store, str(file))
    save_file({"one": torch.zeros(2)}, file)
    second = require_weights(store, f"file://{file}")
    third = require_weights(store, str(file))
    assert first.sha256 != second.sha256 == third.sha256
    file.unlink()  # as in a pod
    assert require_weights(store, str(file)) == third


def test_weights_of_a_bucket_are_fetched_and_copied_to_the_cache(
    s3_store_uri, file, tmp_path, monkeypatch
):
    store = open_store(s3_store_uri)
    store.upload(file, "mine/weights.safetensors")
    source = f"{s3_store_uri}/mine/weights.safetensors"
    found = require_weights(store, source)
    path = weights_path(store, found, tmp_path / "cache")
    assert path.is_relative_to(tmp_path / "cache")
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="was changed: its digest differs; delete it and run `b"):
        weights_path(store, found, tmp_path / "cache")
    with pytest.raises(UserError, match="there is no such object"):
        fetch_weights(store, f"{s3_store_uri}/mine/others.pth")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet18", "are not understood; give imagenet:ENCODER, an absolute path, s3://"),
        ("ftp://host/weights", "are not understood"),
        ("https://user:secret@host/weights", "are not understood"),
        ("imagenet:resnet19", r"encoder='resnet19' is not known \(nearest: resnet18"),
        ("imagenet:dpn92", "has no ImageNet weights"),
        ("/no/such/file", "there is no such file on this machine"),
        ("package:no_such_package/file", "package no_such_package is not installed here"),
        ("package:numpy/no/file", "package numpy has no such file"),
        ("package:numpy/../torch/version.py", "package numpy has no such file"),
    ],
)
def test_a_wrong_source_is_refused_in_a_sentence_and_stores_nothing(store, source, message):
    with pytest.raises(UserError, match=message):
        fetch_weights(store, source)
    assert not list(store.keys("weights/"))


def test_a_server_without_the_file_or_none_at_all(store, web):
    address, _ = web
    with pytest.raises(UserError, match="the server answers 404"):
        fetch_weights(store, f"{address}/none.pth")
    with pytest.raises(OutageError, match=r"cannot be downloaded .*`brainseg weights fetch http:"):
        fetch_weights(store, "http://127.0.0.1:9/weights.pth")


def test_what_is_no_weights_is_not_stored(store, tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(UserError, match="this is a web page or XML"):
        fetch_weights(store, str(tmp_path / "page.pth"))
    assert not list(store.keys("weights/"))


def test_imagenet_weights_without_a_network_say_how_to_go_on(store, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = r"cannot be downloaded.*`brainseg weights fetch imagenet:resnet18 .*weights=none"
    with pytest.raises(UserError, match=message):
        require_weights(store, "imagenet:resnet18")


@pytest.fixture
def mlflow_run(tmp_path, monkeypatch, make_mlflow, file):
    """Id of a run in a local MLflow, with the file, and a stored model as an artifact folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    client = connect()
    run_id = client.create_run(open_experiment(client)).info.run_id
    client.log_artifact(run_id, file, "some")
    (tmp_path / "model").mkdir()
    write_segmenter(build_segmenter(SMALL), tmp_path / "model")
    client.log_artifact(run_id, tmp_path / "model")
    return run_id


def test_a_run_of_mlflow_has_files_and_models(store, file, tmp_path, mlflow_run):
    found = require_weights(store, f"runs:/{mlflow_run}/some/{file.name}")
    assert (found.sha256, found.config) == (file_digest(file), "")
    model = require_weights(store, f"runs:/{mlflow_run}/model")
    assert model.sha256 == file_digest(tmp_path / "model" / WEIGHTS_FILE)
    assert json.loads(model.config)["network"]["architecture"] == "plain_unet"
    assert require_weights(store, str(tmp_path / "model")).sha256 == model.sha256
    for missing in ("some/none.pth", "none"):
        with pytest.raises(UserError, match=f"^weights runs:/.*{missing} cannot be fetched: "):
            fetch_weights(store, f"runs:/{mlflow_run}/{missing}")
