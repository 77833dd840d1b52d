"""Initial weights of training runs."""

import re
import uuid

import pytest
import torch
from mlflow.models import Model
from safetensors.torch import save_file

from components.register.registry import add_version
from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.split import make_split, split_key
from components.shared.errors import UserError
from components.shared.model.model_folder import WEIGHTS_FILE, write_segmenter
from components.shared.model.network import build_segmenter
from components.shared.storage.store import file_digest
from components.shared.tracking.champion import CHAMPION
from components.shared.tracking.server import connect
from components.train import training
from components.train.fit import Fit
from components.train.initial import identify
from components.train.training import train_model
from tests.components.conftest import new_run


@pytest.fixture
def name():
    return uuid.uuid4().hex


@pytest.fixture
def register(tracking, tmp_path, name):
    """Registers a model of a recipe's network as champion; returns it with its digest."""

    def register(recipe, **tags):
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        segmenter = build_segmenter(recipe.network)
        write_segmenter(segmenter, folder)
        Model().save(str(folder / "MLmodel"))
        version = add_version(connect(), name, new_run(), folder, tags, [])
        connect().set_registered_model_alias(name, CHAMPION, version.version)
        return segmenter, file_digest(folder / WEIGHTS_FILE)

    return register


@pytest.fixture
def warm(make_recipe):
    return make_recipe(
        network={"initial_weights": "champion"},
        optimizer={"learning_rate": 0.01, "warm_start_factor": 0.5},
    )


@pytest.fixture
def find(dataset, name):
    """Finds the weights of a training run."""

    def find(recipe, pipeline_run="run-1"):
        return identify(
            recipe,
            dataset.store,
            name,
            pipeline_run=pipeline_run,
            label="",
            dataset_id=dataset.manifest.dataset_id,
            split_id=dataset.split.split_id,
        )

    return find


@pytest.fixture
def publish_split(dataset):
    """Stores a split, and the data set's manifest; returns both ids as a version's tags."""

    def publish_split(split):
        store, manifest = dataset.store, dataset.manifest
        store.write(manifest_key(manifest.dataset_id), manifest.to_json())
        store.write(split_key(split.split_id), split.to_json())
        return {"dataset_id": manifest.dataset_id, "split_id": split.split_id}

    return publish_split


def test_a_retry_after_a_promotion_starts_from_the_same_champion(warm, register, find, name):
    _, digest = register(warm)
    training, weights = find(warm)
    assert weights.files["network.initial_weights"].source == f"models:/{name}/1"
    assert training.weights == {"network.initial_weights": digest}
    _, newer = register(warm)
    assert find(warm) == (training, weights)
    other, later = find(warm, "run-2")
    assert later.files["network.initial_weights"].sha256 == newer
    assert other.digest != training.digest


def test_without_a_champion_the_network_starts_as_usual_in_every_attempt(
    warm, register, find, name, caplog
):
    training, weights = find(warm)
    assert weights.files == training.weights == {}
    assert f"model {name} has no champion; starting without it" in caplog.text
    register(warm)
    assert find(warm) == (training, weights)


def test_a_recipe_without_weights_leaves_nothing_in_the_store(recipe, find, dataset):
    training, weights = find(recipe)
    assert weights.files == training.weights == {}
    assert not list(dataset.store.keys("runs/"))


def test_a_model_that_learned_from_test_patients_is_refused(
    warm, register, find, dataset, publish_split
):
    publish_split(dataset.split)
    volumes = dataset.manifest.volumes
    other = make_split({"train": volumes[2:], "validation": volumes[:1], "test": volumes[1:2]})
    register(warm, **publish_split(other))
    tests = len(dataset.split.test)
    with pytest.raises(UserError, match=rf"was trained on {tests} of the {tests} test patients"):
        find(warm)
    register(warm, **publish_split(dataset.split))
    assert find(warm)[1].files


def _arguments(folder, **changes):
    folder.mkdir()
    (folder / "profile.html").write_text("<html></html>")
    paths = {"profile_report": "profile.html", "model": "model", "history": "history.json"}
    return {"pipeline_run": "run-1", **{key: folder / paths[key] for key in paths}, **changes}


@pytest.fixture
def started(monkeypatch):
    """The recipe and the weights with which a training run would start."""
    seen = []

    def fit(recipe, segmenter, *_):
        weights = {key: tensor.clone() for key, tensor in segmenter.state_dict().items()}
        seen.append((recipe, weights))
        return Fit(segmenter.eval(), (), None)

    def export(segmenter, folder):
        folder.mkdir()
        return 0.0

    monkeypatch.setattr(training, "try_export", lambda *_: None)
    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(training, "export_segmenter", export)
    return seen


def test_a_warm_start_has_the_weights_and_a_rate_of_its_own_and_is_logged(
    warm, register, dataset, name, started, tmp_path
):
    segmenter, digest = register(warm)
    arguments = _arguments(tmp_path / "out", model_name=name)
    run_id = train_model(warm, dataset, **arguments)
    ((recipe, weights),) = started
    torch.testing.assert_close(weights, dict(segmenter.state_dict()))
    assert recipe.optimizer.learning_rate == 0.005
    params = connect().get_run(run_id).data.params
    assert params["train.network.initial_weights"] == "champion"
    assert params["train.network.initial_weights_source"] == f"models:/{name}/1"
    assert params["train.network.initial_weights_sha256"] == digest
    assert f'"start":"models:/{name}/1 (sha256 {digest})"' in arguments["history"].read_text()


def test_pretrained_weights_of_the_encoder_are_loaded_with_the_usual_rate(
    make_recipe, dataset, started, tracking, tmp_path
):
    source = build_segmenter(make_recipe(network={"context_slices": 0}).network).network.encoder
    save_file({f"module.{key}": one for key, one in source.state_dict().items()}, tmp_path / "file")
    recipe = make_recipe(network={"encoder_weights": str(tmp_path / "file")})
    run_id = train_model(recipe, dataset, **_arguments(tmp_path / "out"))
    ((used, weights),) = started
    assert used == recipe
    for key, tensor in source.state_dict().items():
        found = weights[f"network.encoder.{key}"]
        repeats = found.dim() == 4 and found.shape != tensor.shape
        expected = torch.cat([tensor] * 3, dim=1) / 3 if repeats else tensor
        torch.testing.assert_close(found, expected)
    digest = connect().get_run(run_id).data.params["train.network.encoder_weights_sha256"]
    assert digest == file_digest(tmp_path / "file")


def test_another_architecture_is_refused_before_any_epoch(
    warm, make_recipe, register, dataset, name, started, tmp_path
):
    register(make_recipe(network={"context_slices": 0}))
    message = f"cannot start from models:/{name}/1: context_slices is 0 there and 1 here; "
    with pytest.raises(UserError, match=re.escape(message)):
        train_model(warm, dataset, **_arguments(tmp_path / "out", model_name=name))
    assert not started
