import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import pipelines
from components.shared.errors import UserError
from components.shared.model.network import build_segmenter
from components.shared.model.settings import Network
from components.train.recipe import OptimizerSettings
from pipelines.catalogue import PIPELINES
from pipelines.settings.presets import (
    STEPS,
    USUAL_DEPTHS,
    USUAL_ENCODERS,
    graph_arguments,
    list_presets,
    load_preset,
    load_recipes,
    pipeline_arguments,
    preset_names,
    settings_of,
    show_preset,
)
from pipelines.settings.yaml_files import merged

PRESETS = Path(pipelines.__file__).parent / "presets"

_QUICK = """
network:
  {architecture: unet, encoder: resnet18, encoder_weights: none, encoder_depth: 4,
   decoder_channels: [64, 32, 16, 8], image_size: 96, context_slices: 1, sequences: all,
   normalization: head, crop: head, test_time_flip: true, min_component_fraction: 0.1}
flair_network: null
sampling: {batch_size: 24, accumulate: 1, foreground_fraction: 0.6}
augmentation:
  {policy: custom, rotation_degrees: 20, scale_factor: 0.25, intensity_shift: 0.4,
   elastic_shift: 0.03, gamma: 1.5, sharpness_shift: 0.5, bias_field: 0.3,
   modality_dropout_prob: 0.1, carvemix_prob: 0}
optimizer:
  {method: muon, learning_rate: 0.002, find_learning_rate: false, encoder_factor: 1,
   weight_decay: 0.01, gradient_clip: null, loss: bce+dice, ema_decay: null}
schedule:
  {epochs: 12, lr_schedule: one_cycle, warmup_fraction: 0.2, validate_every_epochs: 4,
   patience: null, checkpoint: last,
   phases: [{length: 1, image_size: null, freeze_encoder: false, lr_factor: 1,
             encoder_factor: null, augmentation: null}]}
compute:
  {precision: auto, device: auto, loader_workers: 0, threads: null, deterministic: false}
seed: 0
"""


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name):
    assert set(load_preset(name)) == set(STEPS)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_begins_with_a_comment_and_lists_only_what_differs_from_the_defaults(name):
    text = (PRESETS / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    listed = yaml.safe_load(text)["train"]
    different = load_preset(name)["train"].model_dump(mode="json", exclude_defaults=True)
    assert merged(different, listed) == different  # nothing is listed that has its default


def test_presets_are_listed_with_purpose_and_scores():
    listed = list_presets()
    assert [each.name for each in listed] == preset_names()
    quick = next(each for each in listed if each.name == "quick")
    assert quick.purpose == "a first run, in minutes on a laptop"
    assert quick.scores.startswith("patient Dice: mean 0.807, median 0.862 (71 LGG patients")


def test_quick_is_what_its_scores_were_measured_with():
    """A new setting has a default that changes nothing, so it is not listed here."""
    resolved = load_preset("quick")["train"].model_dump(mode="json")
    assert merged(resolved, yaml.safe_load(_QUICK)) == resolved


@pytest.mark.parametrize("name", preset_names())
def test_a_shown_preset_has_every_setting_and_is_the_same_preset(name, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(show_preset(name))
    assert load_preset(str(path)) == load_preset(name)
    shown = yaml.safe_load(path.read_text())
    assert list(shown) == list(STEPS)
    assert set(shown["train"]["optimizer"]) == set(OptimizerSettings.model_fields)


def test_a_preset_is_shown_with_its_changes_and_recipes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("purpose: mine\nrecipes: {a: {seed: 3}}\ntrain: {seed: 2}\n")
    shown = yaml.safe_load(show_preset(str(path), ["train.schedule.epochs=7"]))
    assert shown["recipes"] == {"a": {"seed": 3}}
    assert (shown["train"]["seed"], shown["train"]["schedule"]["epochs"]) == (2, 7)
    with pytest.raises(UserError, match=r"train\.schedule\.epoch is not"):
        show_preset("quick", ["train.schedule.epoch=7"])


def test_a_change_replaces_one_setting():
    preset = load_preset("quick", ["train.schedule.epochs=6", "profile.min_patients=4"])
    arguments = pipeline_arguments(preset)
    assert json.loads(arguments["train_settings"])["schedule"]["epochs"] == 6
    assert json.loads(arguments["train_settings"])["network"]["image_size"] == 96
    assert json.loads(arguments["profile_settings"])["min_patients"] == 4


def test_changes_in_a_section_leave_its_other_settings():
    changes = ["train.network.encoder_weights=imagenet", "train.optimizer.learning_rate=0.1"]
    quick, changed = load_preset("quick")["train"], load_preset("quick", changes)["train"]
    assert changed.network.encoder_weights == "imagenet"
    assert changed.optimizer.learning_rate == 0.1
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
        ("fast", [], "no preset 'fast'; there are best, buda2019, demo, quick"),
        ("quick", ["epochs=3"], "--set 'epochs=3' is not understood.*STEP.KEY=VALUE"),
        ("quick", ["fit.epochs=3"], "STEP one of ingest, profile"),
        ("quick", ["trian.seed=3"], r"not understood \(nearest: train\); the form is STEP.KEY="),
        ("quick", ["train.schedule.epochs"], "not understood"),
        ("quick", ["train.schedule.epochs=["], "the value is not valid YAML"),
        ("quick", ["train.network.decoder_channels=[8, 8]"], "2 widths for 4 stages"),
        ("quick", ["train.network.architecture=fpn"], "decoder_channels are of unet, "),
        ("quick", ["train.schedule.epochs=many"], "train.schedule.epochs='many': Input should be"),
        ("quick", ["train.schedule.epoch=3"], "nearest: train.schedule.epochs"),
        ("quick", ["train.epochs=3"], "train.epochs is now train.schedule.epochs"),
        ("quick", ["train..epochs=3"], "not understood"),
        ("quick", ["train.seed=3", "train.seed.x=3"], "seed is 3 and holds no x"),
        ("quick", ["train.network.image_size.a=1"], "image_size is 96 and holds no a"),
        ("quick", ["train.network.encoder.name=a"], "train.network.encoder: Input should be a"),
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
    path.write_text("trian: {epochs: 3}\n")
    with pytest.raises(
        UserError, match=r"only the sections ingest, profile.*, not trian \(nearest: train\)$"
    ):
        load_preset(str(path))


@pytest.mark.parametrize(
    ("encoder", "near"),
    [
        ("resnet19", r" \(nearest: resnet18, .*, .*\)"),
        ("tu-resnet19", r" \(nearest: tu-resnet18, .*, .*\)"),
        ("tu-resnet18.nosuch", r" \(nearest: .*tu-resnet18.*\)"),
        ("tu-nosuch", ""),
    ],
)
def test_an_encoder_that_the_libraries_lack_is_refused_with_the_nearest(encoder, near):
    known = (
        r"allowed are those of https://smp\..*, and tu-NAME for every NAME in timm\.list_models\(\)"
    )
    message = rf"^train\.network\.encoder='{encoder}' is not known{near}; {known}$"
    with pytest.raises(UserError, match=message):
        load_preset("quick", [f"train.network.encoder={encoder}"])


@pytest.mark.parametrize(
    "encoder", ["timm-efficientnet-b0", "mit_b0", "tu-resnet18", "tu-resnet18.a1_in1k"]
)
def test_any_encoder_of_the_libraries_is_taken(encoder):
    network = load_preset("quick", [f"train.network.encoder={encoder}"])["train"].network
    assert network.encoder == encoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["architecture=linknet", "encoder=mit_b0", "decoder_channels=null"],
            r"train\.network: no network linknet with encoder mit_b0: ",
        ),
        (
            ["architecture=fpn", "decoder_channels=null"],
            r"fpn with encoder resnet18 with encoder_depth=4 returns .* for a slice of 96 x 96",
        ),
        (
            ["architecture=dpt", "decoder_channels=null", "encoder_weights=imagenet"],
            r"train\.network: no network dpt with encoder resnet18: ",
        ),
        (
            ["encoder=dpn92", "encoder_weights=imagenet"],
            r"train\.network\.encoder=dpn92 has no ImageNet weights; .*encoder_weights=none",
        ),
        (
            ["encoder=tu-mobilenetv2_035", "encoder_weights=imagenet"],
            r"train\.network\.encoder=tu-mobilenetv2_035 has no ImageNet weights",
        ),
    ],
)
def test_what_cannot_be_built_together_is_refused_before_a_run(changes, message):
    with pytest.raises(UserError, match=message):
        load_preset("quick", [f"train.network.{change}" for change in changes])


def test_a_size_of_a_phase_that_the_network_cannot_take_is_refused_before_a_run():
    network = ["architecture=pan", "decoder_channels=null", "encoder_depth=5", "image_size=128"]
    changes = [f"train.network.{change}" for change in network]
    assert load_preset("quick", changes)
    with pytest.raises(UserError, match="cannot take slices of 64 x 64"):
        load_preset("quick", [*changes, "train.schedule.phases=[{image_size: 64}, {}]"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.loss=Dice", r"^train\.optimizer\.loss=Dice is not known \(nearest: dice, Dice"),
        ("optimizer.loss={name: TverskyLoss, alfa: 1}", r"accept alfa \(nearest: alpha\)"),
        ("optimizer.method=Adm", r"^train\.optimizer\.method=Adm is not known"),
        ("optimizer.method={name: muon, nestrov: true}", r"accept nestrov \(nearest: nesterov\)"),
        ("schedule.lr_schedule=ReduceLROnPlateau", r"^train\.schedule\.lr_schedule=Reduce"),
    ],
)
def test_a_loss_an_optimizer_or_a_schedule_is_tried_before_a_run(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_preset("quick", [f"train.{change}"])
    path = tmp_path / "mine.yaml"
    path.write_text("recipes: {a: }")
    with pytest.raises(UserError, match=message.replace("^train", r"^recipes\.a")):
        load_recipes(str(path), [f"train.{change}"])


def test_the_second_network_and_every_recipe_of_a_comparison_are_checked_too(tmp_path):
    with pytest.raises(UserError, match=r"^train\.flair_network\.encoder='resnet19' is not known"):
        load_preset("standard", ["train.flair_network={sequences: reference, encoder: resnet19}"])
    path = tmp_path / "mine.yaml"
    path.write_text("recipes: {a: , b: {network: {encoder: resnet19}}}")
    with pytest.raises(UserError, match=r"^recipes\.b\.network\.encoder='resnet19' is not known"):
        load_recipes(str(path))


@pytest.mark.parametrize("architecture", USUAL_DEPTHS)
@pytest.mark.parametrize("encoder", sorted(USUAL_ENCODERS))
def test_the_usual_networks_can_be_built(architecture, encoder):
    for depth in USUAL_DEPTHS[architecture]:
        network = {"encoder": encoder, "encoder_depth": depth, "encoder_weights": "none"}
        with torch.device("meta"):
            build_segmenter(Network(architecture=architecture, image_size=32, **network))


def test_the_usual_networks_need_no_look_which_takes_seconds():
    script = """
import sys
from pipelines.settings.presets import load_preset
load_preset("quick")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_networks_are_not_built_where_the_libraries_are_missing():
    """`submit` has the extra pipelines only, and the network is refused in its step."""
    change = "train.network.encoder=resnet19"
    code = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *others: (
    None if name == "segmentation_models_pytorch" else find(name, *others)
)
from pipelines.settings.presets import load_preset
assert load_preset("quick", ["{change}"])["train"].network.encoder == "resnet19"
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: 5", "train must hold `key: value` pairs, not 5"),
        (b"train: {1: 2}", "train.1=1: Keys should be strings"),
        (b"train: {epochs: 3}", "train.epochs is now train.schedule.epochs"),
        (b"a: b: c", "not valid YAML"),
        (b"train: {seed: 1, seed: 2}", "duplicate key 'seed'"),
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

    def test_every_one_of_them_can_be_made_and_has_one_network(self):
        changes = ["train.network.encoder_weights=none"]  # they are a download
        found = [each for name in preset_names() for each in load_recipes(name, changes).values()]
        for network in {recipe.network for recipe in found}:
            with torch.device("meta"):  # shapes alone show that its parts fit together
                build_segmenter(network)
        assert {tuple(recipe.networks) for recipe in found} == {("network",)}

    def test_a_change_is_of_all_recipes_or_of_one(self):
        changes = ("train.schedule.epochs=3", "recipes.unet-resnet34.schedule.epochs=5")
        epochs = {k: one.schedule.epochs for k, one in load_recipes("quick", changes).items()}
        assert epochs.pop("unet-resnet34") == 5
        assert set(epochs.values()) == {3}

    def test_a_change_of_an_unknown_recipe_adds_none(self):
        message = r"no such recipe \(nearest: unet-resnet34\); there are .*Add one in the section"
        with pytest.raises(UserError, match=message):
            load_recipes("quick", ["recipes.unet-resnet3.seed=1"])

    def test_an_entry_may_name_a_preset_whose_recipe_is_taken_whole(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("train: {seed: 3}\nrecipes: {a: demo, b: {seed: 4}, c: }")
        found = load_recipes(str(path))
        assert found["a"] == load_preset("demo")["train"]
        assert [found["b"].seed, found["c"].seed] == [4, 3]

    @pytest.mark.parametrize(
        ("recipes", "message"),
        [
            ("{a: 3}", "recipes.a must hold changes of `train`, or name a preset"),
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


def test_settings_are_read_where_kfp_is_not_installed():
    """`brainseg predict` reads changes of settings and has the extra trainer only."""
    code = "import sys; import pipelines.settings.presets; sys.exit('kfp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
