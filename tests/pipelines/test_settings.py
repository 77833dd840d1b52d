import json

import pytest
import torch

from components.shared.errors import UserError
from components.train.network import build_segmenter
from pipelines.catalogue import PIPELINES
from pipelines.graph import settings_of
from pipelines.settings import (
    STEPS,
    graph_arguments,
    load_preset,
    load_recipes,
    pipeline_arguments,
    preset_names,
)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name):
    assert set(load_preset(name)) == set(STEPS)


def test_a_change_replaces_one_setting():
    preset = load_preset("quick", ["train.schedule.epochs=6", "profile.min_patients=4"])
    arguments = pipeline_arguments(preset)
    assert json.loads(arguments["train_settings"])["schedule"]["epochs"] == 6
    assert json.loads(arguments["train_settings"])["network"]["image_size"] == 128
    assert json.loads(arguments["profile_settings"])["min_patients"] == 4


def test_changes_in_a_section_leave_its_other_settings():
    changes = ["train.network.encoder_weights=imagenet", "train.optimiser.learning_rate=0.1"]
    quick, changed = load_preset("quick")["train"], load_preset("quick", changes)["train"]
    assert changed.network.encoder_weights == "imagenet"
    assert changed.optimiser.learning_rate == 0.1
    same = {"encoder_weights": "none"}
    assert changed.network.model_copy(update=same) == quick.network
    assert changed.sampling == quick.sampling


def test_a_preset_can_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {schedule: {epochs: 3}}\n")
    train = json.loads(pipeline_arguments(load_preset(str(path)))["train_settings"])
    assert train["schedule"]["epochs"] == 3


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fast", [], "no preset 'fast'; there are buda2019, demo, quick, report"),
        ("quick", ["epochs=3"], "--set 'epochs=3' is not understood.*STEP.KEY=VALUE"),
        ("quick", ["fit.epochs=3"], "STEP one of ingest, profile"),
        ("quick", ["train.schedule.epochs"], "not understood"),
        ("quick", ["train.schedule.epochs=["], "the value is not valid YAML"),
        ("quick", ["train.network.decoder_channels=[8, 8]"], "2 widths for 4 stages"),
        ("quick", ["train.network.architecture=fpn"], "decoder_channels are of the U-Net"),
        ("quick", ["train.schedule.epochs=many"], "train.schedule.epochs='many': Input should be"),
        ("quick", ["train.schedule.epoch=3"], "nearest: train.schedule.epochs"),
        ("quick", ["train.epochs=3"], "train.epochs is now train.schedule.epochs"),
        ("quick", ["train..epochs=3"], "not understood"),
        ("quick", ["train.seed=3", "train.seed.x=3"], "seed is 3 and holds no x"),
        ("quick", ["train.network.encoder.name=a"], "encoder is 'resnet18' and holds no name"),
        ("quick", ["split.a.b.c=1"], "split.a is not a setting"),
        ("quick", ["register.threshold=0.4"], "register.threshold is not a setting"),
        ("quick", ["split.test_fraction=1.5"], "split.test_fraction=1.5"),
    ],
)
def test_a_wrong_preset_or_change_is_named(name, changes, message):
    with pytest.raises(UserError, match=message):
        load_preset(name, changes)


def test_a_file_with_other_sections_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epochs: 3}\n")
    with pytest.raises(UserError, match="only the sections ingest, profile"):
        load_preset(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: 5", "train must hold `key: value` pairs, not 5"),
        (b"train: {1: 2}", "train.1=1: Keys should be strings"),
        (b"train: {epochs: 3}", "train.epochs is now train.schedule.epochs"),
        (b"a: b: c", "not valid YAML"),
        (b"\xff\xfe\x00", "no preset"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_preset(str(path))


def test_the_split_of_the_report_has_a_short_name():
    arguments = pipeline_arguments(load_preset("quick", ["split=report2020"]))
    assert json.loads(arguments["split_settings"])["method"] == "report2020"


def test_a_pipeline_gets_the_settings_that_it_takes():
    steps = settings_of(PIPELINES["training"])
    assert steps == ["ingest", "profile", "split", "train", "evaluate", "register"]
    arguments = pipeline_arguments(load_preset("quick", (), steps))
    assert list(arguments) == [f"{step}_settings" for step in steps]
    assert settings_of(PIPELINES["retraining"]) == [*steps, "notify"]


def test_a_change_for_a_step_of_another_pipeline_is_refused():
    steps = settings_of(PIPELINES["training"])
    with pytest.raises(UserError, match="STEP one of ingest, profile, split, train, evaluate, reg"):
        load_preset("quick", ["notify.form=slack"], steps)
    assert load_preset("quick", ["notify.form=slack"])["notify"].form == "slack"


def test_a_file_may_serve_several_pipelines(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("notify: {form: slack}\n")
    assert "notify" not in load_preset(str(path), (), settings_of(PIPELINES["training"]))
    path.write_text("notify: {form: pigeon}\n")
    with pytest.raises(UserError, match=r"notify\.form='pigeon'"):
        load_preset(str(path), (), settings_of(PIPELINES["training"]))


class TestRecipes:
    def test_without_a_word_five_networks_of_different_kinds_are_compared(self):
        recipes = load_recipes("quick")
        kinds = {(one.network.architecture, one.network.encoder) for one in recipes.values()}
        assert kinds == {
            ("unet", "resnet18"),
            ("unet", "resnet34"),
            ("unetplusplus", "resnet18"),
            ("fpn", "resnet18"),
            ("unet", "mobilenet_v2"),
        }
        quick = load_preset("quick")["train"]
        assert {one.schedule for one in recipes.values()} == {quick.schedule}
        assert {one.network.encoder_weights for one in recipes.values()} == {"none"}

    @pytest.mark.parametrize("preset", ["demo", "quick"])
    def test_every_one_of_them_can_be_trained(self, preset):
        for label, recipe in load_recipes(preset, ["train.network.image_size=64"]).items():
            network = build_segmenter(recipe.network).network.eval()
            channels = 3 * (2 * recipe.network.context_slices + 1)
            assert network(torch.zeros(2, channels, 64, 64)).shape == (2, 1, 64, 64), label

    def test_a_change_is_of_all_recipes_or_of_one(self):
        changes = ("train.schedule.epochs=3", "recipes.unet-resnet34.schedule.epochs=5")
        epochs = {k: one.schedule.epochs for k, one in load_recipes("quick", changes).items()}
        assert epochs.pop("unet-resnet34") == 5
        assert set(epochs.values()) == {3}

    def test_an_entry_may_name_a_preset_whose_recipe_is_taken_whole(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("train: {seed: 3}\nrecipes: {a: demo, b: {seed: 4}, c: }")
        found = load_recipes(str(path))
        assert found["a"] == load_preset("demo")["train"]
        assert [found["b"].seed, found["c"].seed] == [4, 3]

    @pytest.mark.parametrize(
        ("recipes", "message"),
        [
            ("{a: 3}", "recipes.a must hold what it changes of `train`, or name a preset"),
            ("{a: {networks: {}}}", r"recipes.a.networks is not a setting \(nearest: recipes.a"),
            ("{a: nonsense}", "no preset 'nonsense'"),
            ("{a/b: {}}", "label 'a/b': it becomes part of metrics' names"),
            ("[a]", "recipes must hold `key: value` pairs"),
        ],
    )
    def test_an_entry_that_is_none_is_refused_by_its_name(self, tmp_path, recipes, message):
        path = tmp_path / "mine.yaml"
        path.write_text(f"recipes: {recipes}")
        with pytest.raises(UserError, match=message):
            load_recipes(str(path))

    def test_a_graph_that_compares_gets_them_as_a_list_and_no_other_does(self):
        changes = ("split.seed=7", "train.schedule.epochs=3")
        arguments = graph_arguments(PIPELINES["comparison"], "quick", changes)
        assert json.loads(arguments["split_settings"])["seed"] == 7
        assert "train_settings" not in arguments
        labels = [one["label"] for one in arguments["recipes"]]
        assert labels == list(load_recipes("quick"))
        first = json.loads(arguments["recipes"][0]["settings"])
        assert first["schedule"]["epochs"] == 3
        assert "recipes" not in graph_arguments(PIPELINES["training"], "quick", changes)
