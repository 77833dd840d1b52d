import json
import math
import multiprocessing
import time

import numpy as np
import pytest
import torch
from mlflow.models import Model

from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.dataset.volumes import Volume, encode_volume, volume_key
from components.shared.errors import UserError
from components.shared.model.model_folder import write_segmenter
from components.shared.model.network import PairedSegmenter, build_segmenter, with_neighbours
from components.shared.model.segmenter import load_segmenter
from components.shared.report.training_history import TrainingHistory
from components.shared.tracking.server import EXPERIMENT, connect
from components.shared.tracking.tree import end_pipeline_run
from components.train import finder, training
from components.train.data.slices import prepare_volumes
from components.train.export import export_segmenter
from components.train.finder import judge_sweep
from components.train.fit import Fit, fit
from components.train.recipe import Recipe
from components.train.task import SegmentationTask
from components.train.training import TrainingLogger, train_model
from pipelines.settings.presets import load_preset, load_recipes, preset_names
from tests.components.conftest import REGIONS
from tests.components.train.conftest import Interruption, ball_volume


@pytest.fixture(autouse=True)
def _without_trial_export(monkeypatch):
    # it takes as long as the training and has tests of its own
    monkeypatch.setattr(training, "try_export", lambda *_: None)


@pytest.fixture
def stored_form_only(monkeypatch):
    """Leaves out the archive, which takes longer than the training; test_component writes one."""

    def export(segmenter, folder):
        folder.mkdir()
        write_segmenter(segmenter, folder)
        return 0.0

    monkeypatch.setattr(training, "export_segmenter", export)


def _arguments(folder):
    folder.mkdir(exist_ok=True)
    report = folder / "profile.html"
    report.write_text("<html></html>")
    return {
        "pipeline_run": "run-1",
        "profile_report": report,
        "model": folder / "model",
        "history": folder / "history.json",
    }


@pytest.mark.usefixtures("stored_form_only")
def test_the_exported_model_is_what_was_trained(make_recipe, dataset, tracking, tmp_path):
    recipe = make_recipe(schedule={"epochs": 4, "validate_every_epochs": 2})
    run_id = train_model(recipe, dataset, **_arguments(tmp_path / "out"))
    segmenter = load_segmenter(tmp_path / "out" / "model", device="cpu")
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history["learning_rate_search"] is None
    best = max(epoch["validation_dice"] for epoch in history["epochs"])
    assert _validation_dice(segmenter, dataset) == pytest.approx(best, abs=5e-3)

    from mlflow import MlflowClient

    run = MlflowClient(tracking).get_run(run_id)
    assert run.data.params["train.schedule.epochs"] == "4"
    assert run.data.tags["dataset_id"] == dataset.manifest.dataset_id
    points = MlflowClient(tracking).get_metric_history(run_id, "validation_dice")
    assert [point.step for point in points] == [2, 4]
    for name in ("train_loss", "learning_rate", "slices_per_second"):  # of every epoch
        points = MlflowClient(tracking).get_metric_history(run_id, name)
        assert [point.step for point in points] == [1, 2, 3, 4]
        assert all(point.value > 0 for point in points)


@pytest.mark.usefixtures("stored_form_only")
def test_an_epoch_is_in_mlflow_while_the_training_runs(
    recipe, dataset, tracking, tmp_path, monkeypatch
):
    logged, curves = [], {}

    def fit_and_look(*arguments):
        *others, listen = arguments

        def look(epoch):
            logged.append(epoch)
            if epoch["epoch"] == 2:
                curves.update(_curves(tracking))
                raise Interruption  # nothing that comes later has logged them
            listen(epoch)

        return fit(*others, look)

    monkeypatch.setattr(training, "fit", fit_and_look)
    with pytest.raises(Interruption):
        train_model(recipe, dataset, **_arguments(tmp_path / "out"))
    assert [epoch.pop("epoch") for epoch in logged] == [1, 2]
    assert curves == {name: [(1, value)] for name, value in logged[0].items()}
    assert {"train_loss", "validation_dice", "slices_per_second"} <= curves.keys()

    monkeypatch.setattr(training, "fit", fit)
    train_model(recipe, dataset, **_arguments(tmp_path / "out"))
    # the second epoch was stored, but not logged: so it is logged at the end
    assert [step for step, _ in _curves(tracking)["train_loss"]] == [1, 3, 4, 2]


def _curves(tracking):
    """Steps and values of all metrics of the training's run, by a client of its own."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking)
    experiments = [found.experiment_id for found in client.search_experiments()]
    (run,) = (run for run in client.search_runs(experiments) if run.data.metrics)
    return {
        name: [
            (point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }


@pytest.mark.usefixtures("stored_form_only")
def test_a_finished_training_is_not_repeated(recipe, dataset, tracking, tmp_path, monkeypatch):
    """A run whose last epoch MLflow refused, or that ended in a later step, trains no more."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    def log_batch(client, run_id, metrics=(), **others):
        if any(metric.step == 4 for metric in metrics):
            raise MlflowException("HTTP 403 of a proxy", error_code=PERMISSION_DENIED)
        usual(client, run_id, metrics=metrics, **others)

    usual = MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    with pytest.raises(UserError, match=r"MLflow at .* cannot be used: HTTP 403 of a proxy; "):
        train_model(recipe, dataset, **_arguments(tmp_path / "refused"))
    monkeypatch.setattr(MlflowClient, "log_batch", usual)
    monkeypatch.setattr(SegmentationTask, "training_step", lambda *_: pytest.fail("it trains"))

    run_id = train_model(recipe, dataset, **_arguments(tmp_path / "one"))
    assert train_model(recipe, dataset, **_arguments(tmp_path / "two")) == run_id
    one, two = ((tmp_path / name / "history.json").read_text() for name in ("one", "two"))
    assert one == two
    assert len(MlflowClient(tracking).get_metric_history(run_id, "validation_dice")) == 4
    image = dataset.volume(dataset.entries("test")[0]).image
    first, second = (load_segmenter(tmp_path / name / "model") for name in ("one", "two"))
    np.testing.assert_array_equal(first(image), second(image))


@pytest.mark.slow
def test_two_trainings_of_a_pipeline_run_keep_apart(
    recipe, make_recipe, dataset, tracking, tmp_path
):
    """The second one used to take the first one's run, and its parameters were refused."""
    other = make_recipe(schedule={"epochs": 2})
    first = train_model(recipe, dataset, **_arguments(tmp_path / "first"))
    second = train_model(other, dataset, label="short", **_arguments(tmp_path / "second"))
    folders = {key.split("/")[1] for key in dataset.store.keys("checkpoints/")}
    assert len(folders) == 2
    before = {key: dataset.store.read(key) for key in dataset.store.keys("checkpoints/")}
    # a retry of either finds its own run and state, and trains nothing again
    assert train_model(recipe, dataset, **_arguments(tmp_path / "third")) == first
    again = _arguments(tmp_path / "fourth")
    assert train_model(other, dataset, label="short", **again) == second
    assert {key: dataset.store.read(key) for key in before} == before
    client = connect()
    for run_id, epochs in ((first, 4), (second, 2)):
        assert client.get_run(run_id).data.params["train.schedule.epochs"] == str(epochs)
        assert len(client.get_metric_history(run_id, "validation_dice")) == epochs

    end_pipeline_run(client, second, dataset.store)
    assert not list(dataset.store.keys("checkpoints/"))
    assert not [path for path in (dataset.cache / "checkpoints").rglob("*") if path.is_file()]


def test_a_search_whose_first_loss_was_no_number_is_told_without_a_curve(tracking):
    client = connect()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run_id = client.create_run(experiment.experiment_id).info.run_id
    TrainingLogger(client, run_id).search(judge_sweep([1e-6], [math.nan]))
    assert [file.path for file in client.list_artifacts(run_id, "training")] == [
        "training/learning_rate_search.txt"
    ]


@pytest.mark.usefixtures("stored_form_only")
def test_a_found_learning_rate_is_trained_with_shown_and_kept(
    make_recipe, train, dataset, tracking, tmp_path, monkeypatch
):
    monkeypatch.setattr(finder, "STEPS", 40)
    recipe = make_recipe(
        optimizer={"find_learning_rate": True, "learning_rate": 1e-6}, schedule={"epochs": 2}
    )
    second = recipe.network.model_copy(update={"sequences": "reference"})
    recipe = recipe.model_copy(update={"flair_network": second})
    run_id = train_model(recipe, dataset, **_arguments(tmp_path / "one"))
    history = json.loads((tmp_path / "one" / "history.json").read_text())
    found = history["learning_rate_search"]["suggestion"]["learning_rate"]
    given = make_recipe(optimizer={"learning_rate": found}, schedule={"epochs": 2})
    assert list(train(given, "given").history) == history["epochs"]  # the search left no trace

    client = connect()
    params = client.get_run(run_id).data.params
    assert params["train.optimizer.learning_rate"] == "1e-06"
    assert params["train.optimizer.found_learning_rate"] == str(found)
    assert "train.optimizer.flair_found_learning_rate" in params
    assert [file.path for file in client.list_artifacts(run_id, "training")] == [
        "training/flair_learning_rate_search.png",
        "training/flair_learning_rate_search.txt",
        "training/learning_rate_search.png",
        "training/learning_rate_search.txt",
    ]
    # for the next attempt, next to the states, which are replaced
    kept = [key for key in dataset.store.keys("checkpoints/") if "learning_rate_search" in key]
    assert len(kept) == 2
    end_pipeline_run(client, run_id, dataset.store)
    assert not list(dataset.store.keys("checkpoints/"))


@pytest.mark.usefixtures("tracking")
def test_of_two_networks_the_first_learns_from_whole_scans_and_the_second_from_all(
    recipe, store, publish, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    volumes = [ball_volume(seed) for seed in range(5)]
    for number in (1, 3):  # no pre-contrast sequence: FLAIR in its place
        volumes[number].image[..., 0] = volumes[number].image[..., 1]
    manifest = publish(store, volumes, sites=("CS",))
    listed = manifest.volumes
    split = make_split({"train": listed[:2], "validation": listed[2:4], "test": listed[4:]})
    dataset = SplitDataset(store, tmp_path / "cache", manifest, split)
    seen = []

    def fit(recipe, segmenter, train, validation, *_):
        seen.append([[volume.entry for volume in part] for part in (train, validation)])
        if len(seen) == 2:
            raise Interruption
        return Fit(segmenter, (), None)

    monkeypatch.setattr(training, "fit", fit)
    second = recipe.network.model_copy(update={"sequences": "reference"})
    paired = recipe.model_copy(update={"flair_network": second})
    with pytest.raises(Interruption):
        train_model(paired, dataset, **_arguments(tmp_path / "out"))
    assert "first of two networks, on all sequences; times are for one" in caplog.text
    whole, every = seen
    assert every == [dataset.entries("train"), dataset.entries("validation")]
    assert whole == [[entry for entry in part if not entry.missing] for part in every]
    assert [len(part) for part in whole] == [1, 1]


def test_a_second_network_that_cannot_be_made_is_refused_before_the_first_is_trained(
    recipe, dataset, tracking, tmp_path
):
    wrong = {"sequences": "reference", "encoder": "resnet19"}
    recipe = recipe.model_copy(update={"flair_network": recipe.network.model_copy(update=wrong)})
    with pytest.raises(UserError, match="resnet19"):
        train_model(recipe, dataset, **_arguments(tmp_path / "out"))
    assert not list(dataset.store.keys("checkpoints/"))


def test_a_network_of_timm_that_cannot_be_exported_is_refused_before_it_is_trained(
    recipe, dataset, tracking, tmp_path, monkeypatch
):
    def refuse(segmenter, place):
        assert recipe.network.encoder.startswith("tu-")
        raise UserError(f"{place} could not be exported")

    monkeypatch.setattr(training, "try_export", refuse)
    with pytest.raises(UserError, match=r"train\.network could not be exported"):
        train_model(recipe, dataset, **_arguments(tmp_path / "out"))
    assert not list(dataset.store.keys("checkpoints/"))


def _validation_dice(segmenter, dataset):
    (entry,) = dataset.entries("validation")
    volume = dataset.volume(entry)
    predicted = segmenter(volume.image) >= 0.5
    return 2 * (predicted & volume.truth).sum() / (predicted.sum() + volume.truth.sum())


@pytest.mark.parametrize("test_time_flip", [False, True])
def test_stored_and_training_time_forward_agree(make_recipe, dataset, tmp_path, test_time_flip):
    torch.manual_seed(0)
    recipe = make_recipe(network={"test_time_flip": test_time_flip})
    segmenter = build_segmenter(recipe.network).eval()
    write_segmenter(segmenter, tmp_path)  # the export proves that the archive agrees with it
    stored = load_segmenter(tmp_path, device="cpu")
    for volume in prepare_volumes(dataset, "train", segmenter):
        stacked = with_neighbours(torch.from_numpy(np.array(volume.images)).float(), 1)
        with torch.inference_mode():
            trained = segmenter.restore(
                segmenter.answer(stacked), torch.from_numpy(volume.box), *volume.label_map.shape[1:]
            )
        image = dataset.volume(volume.entry).image
        # training reads the prepared slices as float16: 3 digits
        np.testing.assert_allclose(stored(image)[0], trained[:, 0].numpy(), atol=2e-3)


def _has_state(store):
    return any("/state-" in key for key in store.keys("checkpoints/"))


@pytest.mark.slow
def test_a_killed_training_goes_on(make_recipe, dataset, tracking, tmp_path, caplog):
    long = make_recipe(schedule={"epochs": 40})
    process = multiprocessing.get_context("spawn").Process(
        target=train_model, args=(long, dataset), kwargs=_arguments(tmp_path / "first")
    )
    process.start()
    deadline = time.monotonic() + 1200
    while process.is_alive() and not _has_state(dataset.store):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.join()
    assert process.exitcode == -9
    assert not (tmp_path / "first" / "model").exists()

    caplog.set_level("INFO")
    run_id = train_model(long, dataset, **_arguments(tmp_path / "second"))
    assert "resuming after epoch" in caplog.text
    from mlflow import MlflowClient

    points = MlflowClient(tracking).get_metric_history(run_id, "validation_dice")
    steps = [point.step for point in points]
    # one may be logged twice: the kill can fall between its checkpoint and its metrics
    assert sorted(set(steps)) == list(range(1, 41))
    assert len(steps) <= 41
    history = json.loads((tmp_path / "second" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == list(range(1, 41))


def _labelled(store, make_entry, count):
    """Volumes of some channels on a scale of their own, with two labels, one of them the target."""
    channels = Channels(
        names=tuple(f"T{n}" for n in range(count)), reference=f"T{count - 1}", dtype="float32"
    )
    entries = []
    for number in range(5):
        ball = ball_volume(number)
        image = np.resize(ball.image.astype(np.int16)[..., 1:] * 9 - 500, (*ball.mask.shape, count))
        encoded = encode_volume(Volume(image, ball.mask * 2))
        store.write(volume_key(encoded.digest), encoded.data)
        form = {"slices": len(image), "dtype": "int16", "missing": ("T0",) * (number == 1)}
        entries.append(make_entry(number, digest=encoded.digest, **form))
    labels, targets = {"oedema": 1, "core": 2}, (Target(name="core", labels=(2,)),)
    return make_manifest(entries, channels, labels, targets)


@pytest.mark.parametrize(
    "count", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 4, 5))]
)
@pytest.mark.usefixtures("tracking")
def test_any_channels_are_trained_exported_and_predicted(
    count, make_recipe, store, make_entry, tmp_path
):
    network = {
        "architecture": "plain_unet",
        "encoder_depth": 3,
        "decoder_channels": None,
        "context_slices": count % 2,
    }
    recipe = make_recipe(network=network, schedule={"epochs": 1})
    if count > 1:
        second = recipe.network.model_copy(update={"sequences": "reference"})
        recipe = recipe.model_copy(update={"flair_network": second})
    manifest = _labelled(store, make_entry, count)
    listed = manifest.volumes
    split = make_split({"train": listed[:3], "validation": listed[3:4], "test": listed[4:]})
    dataset = SplitDataset(store, tmp_path / "cache", manifest, split)
    arguments = _arguments(tmp_path / "out")
    train_model(recipe, dataset, **arguments)  # compares what both forms predict
    segmenter, volume = load_segmenter(arguments["model"], "cpu"), dataset.volume(listed[4])
    assert segmenter.channels == manifest.channels
    probability = segmenter(volume.image, channels=volume.channels)
    assert probability.shape == volume.truth.shape
    scaled = volume.image * np.float32(0.01) + 3  # another unit
    np.testing.assert_allclose(segmenter(scaled), probability, atol=0.02)
    (image,) = Model.load(str(arguments["model"])).signature.inputs.inputs
    assert (image.type, image.shape) == (np.dtype("float32"), (-1, -1, -1, count))


def test_a_second_network_needs_a_second_channel(
    make_recipe, store, make_entry, tracking, tmp_path
):
    recipe = make_recipe(flair_network={"sequences": "reference", "encoder_weights": "none"})
    manifest = _labelled(store, make_entry, 1)
    split = make_split({"train": manifest.volumes, "validation": (), "test": ()})
    dataset = SplitDataset(store, tmp_path / "cache", manifest, split)
    with pytest.raises(UserError, match=r"has one channel, T0; set train\.flair_network=null"):
        train_model(recipe, dataset, **_arguments(tmp_path / "out"))


# what makes every recipe that comes with the package one of two steps
_SHRUNK = [
    "train.network.image_size=64",
    "train.network.encoder_weights=none",
    "train.schedule.validate_every_epochs=8",
    "train.compute.precision=32-true",
    "train.optimizer.find_learning_rate=false",  # two steps show no valley
]


@pytest.mark.slow  # the chain of tests/pipelines/running/test_local.py trains demo
@pytest.mark.parametrize("name", [*preset_names(), *load_recipes("quick")])
@pytest.mark.usefixtures("tracking")
def test_a_recipe_trains_and_exports(name, dataset, tmp_path):
    report, model = tmp_path / "profile.html", tmp_path / "model"
    report.write_text("<html></html>")
    train_model(
        _shrunk(name),
        dataset,
        pipeline_run="run-1",
        profile_report=report,
        model=model,
        history=tmp_path / "history.json",
    )
    exported = load_segmenter(model, device="cpu")
    volume = dataset.volume(dataset.entries("test")[0])
    assert exported(volume.image).shape == volume.truth.shape
    history = TrainingHistory.model_validate_json((tmp_path / "history.json").read_text())
    assert history.epochs
    assert bool(history.flair) == (name == "buda2019")


@pytest.mark.slow
def test_several_targets_are_trained_and_exported(make_recipe, regions, tracking, tmp_path):
    """With a search for the learning rate, and pasted tumours."""
    from mlflow import MlflowClient

    recipe = make_recipe(
        optimizer={"find_learning_rate": True},
        augmentation={"carvemix_prob": 0.2},
        schedule={"epochs": 60, "validate_every_epochs": 10},
    )
    arguments = _arguments(tmp_path / "out")
    run_id = train_model(recipe, regions, **arguments)  # compares what both forms predict
    segmenter = load_segmenter(arguments["model"], "cpu")
    assert segmenter.targets == REGIONS
    epochs = json.loads(arguments["history"].read_text())["epochs"]
    each = [epochs[-1][f"{target.name}/validation_dice"] for target in REGIONS]
    assert epochs[-1]["validation_dice"] == pytest.approx(sum(each) / 3)
    logged = MlflowClient(tracking).get_metric_history(run_id, "core/validation_dice")
    assert [point.value for point in logged] == [one["core/validation_dice"] for one in epochs]
    volume = regions.volume(regions.entries("test")[0])
    for found, truth in zip(segmenter(volume.image) >= 0.5, volume.truth, strict=True):
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.6


@pytest.mark.slow
def test_both_networks_are_exported_and_the_scan_chooses(tmp_path):
    recipe = _shrunk("buda2019")
    networks = (recipe.network, recipe.flair_network)
    segmenter = PairedSegmenter(*(build_segmenter(one).eval() for one in networks))
    export_segmenter(segmenter, tmp_path / "model")
    exported = load_segmenter(tmp_path / "model", device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    lacking = image.copy()
    lacking[..., 2] = lacking[..., 1]
    with torch.inference_mode():
        whole = segmenter.whole(torch.from_numpy(image)).numpy()
        flair = segmenter.flair(torch.from_numpy(lacking)).numpy()
    np.testing.assert_allclose(exported(image)[0], whole, atol=1e-4)
    np.testing.assert_allclose(exported(lacking)[0], flair, atol=1e-4)


def _shrunk(name: str) -> Recipe:
    """The recipe of a preset, or one of those that a comparison has by itself."""
    changes = list(_SHRUNK)
    if name not in preset_names():
        return load_recipes("quick", [*changes, "train.schedule.epochs=2"])[name]
    recipe = load_preset(name)["train"]
    assert isinstance(recipe, Recipe)
    phases = len(recipe.schedule.phases)
    changes += [f"train.schedule.epochs={max(2, phases)}"]
    if recipe.network.architecture == "plain_unet":
        changes += ["train.flair_network.image_size=64", "train.sampling.batch_size=8"]
    if phases > 1:
        small = [phase.model_dump(mode="json") for phase in recipe.schedule.phases]
        small = [{**one, "length": 1, "image_size": one["image_size"] and 32} for one in small]
        changes += [f"train.schedule.phases={small}".replace("None", "null")]
    shrunk = load_preset(name, changes)["train"]
    assert isinstance(shrunk, Recipe)
    return shrunk
