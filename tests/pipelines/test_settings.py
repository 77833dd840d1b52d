import json

import pytest

from components.shared.errors import UserError
from pipelines.catalogue import PIPELINES
from pipelines.graph import settings_of
from pipelines.settings import STEPS, load_preset, pipeline_arguments, preset_names


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
