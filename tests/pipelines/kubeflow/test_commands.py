import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.kfp_api.backend import Moment
from tests.kfp_api.server import Accident
from tests.pipelines.conftest import clean_environment, command

PROJECT = Path(__file__).parents[3]
RUN = ("--source", "synthetic:24", "--store", "s3://mri/brainseg", "--preset", "demo")
IMAGES = ("--registry", "registry.example/team")


@pytest.fixture
def submit(call, server):
    def run(*arguments):
        return call("submit", *RUN, *IMAGES, "--endpoint", server.url, *arguments)

    return run


@pytest.fixture
def schedule(call, server):
    def run(verb, *arguments):
        return call("schedule", verb, *arguments, "--endpoint", server.url)

    return run


def create(schedule, *arguments, name="nightly", cron="0 3 * * *"):
    return schedule("create", name, "--cron", cron, *RUN, *IMAGES, *arguments)


def test_submit_prints_where_the_run_is(submit, server, backend):
    code, out, err = submit("--run-name", "first")
    assert (code, err) == (0, "")
    (run,) = backend.runs
    assert run["display_name"] == "first"
    assert json.loads(json.dumps(run))["runtime_config"]["parameters"]["run_name"] == "first"
    version = backend.versions[0]["name"]
    address = f"{server.url}/#/runs/details/{run['run_id']}"
    assert out == f"run first of new version {version}: {address}\n"


def test_retraining_is_submitted_and_scheduled_by_its_name(submit, schedule, backend):
    assert submit("--pipeline", "retraining", "--parameter", "force=true")[0] == 0
    assert backend.runs[0]["runtime_config"]["parameters"]["force"] is True
    assert create(schedule, "--pipeline", "retraining")[0] == 0
    assert [one["name"] for one in backend.pipelines] == ["brainseg-retraining"]
    run = backend.fire(backend.recurring[0]["recurring_run_id"])
    assert run["runtime_config"]["parameters"]["run_name"] == "nightly"


def test_submit_prints_json_only(submit, backend):
    code, out, _ = submit("--json")
    told = json.loads(out)
    assert code == 0
    assert told["run_id"] == backend.runs[0]["run_id"]
    assert told["pipeline_version"] == backend.versions[0]["name"]


def test_a_dry_run_prints_what_would_be_sent_and_asks_nobody(call):
    code, out, _ = call("submit", *RUN, *IMAGES, "--dry-run", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["plugins_input"] == {"mlflow": {"experiment_name": "brainseg"}}
    assert told["parameters"]["source"] == "synthetic:24"
    assert told["pipeline_version"].startswith("brainseg-training-")
    code, out, _ = call("submit", *RUN, *IMAGES, "--dry-run")
    assert code == 0
    assert "would be sent (--dry-run):" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--source", "data", "--store", "s3://mri/x", *IMAGES], "on this machine only"),
        (["--source", "synthetic:2", "--store", "store", *IMAGES], "every pod needs it"),
        ([*RUN], "has no registry"),
        ([*RUN, *IMAGES, "--set", "train.epoch=1"], "train.epoch is not a setting"),
        ([*RUN, *IMAGES, "--set", "drift.x=1"], "STEP one of"),
        ([*RUN, *IMAGES, "--parameter", "sauce=1"], "has no parameter sauce"),
        ([*RUN, *IMAGES, "--parameter", "sauce"], "the form is NAME=VALUE"),
        ([*RUN, *IMAGES, "--parameter", "x=["], "not valid YAML"),
        ([*RUN, *IMAGES, "--profile", "turbo"], "turbo"),
        ([*RUN, *IMAGES, "--pipeline", "x"], "no pipeline 'x'"),
        ([*RUN, *IMAGES, "--digests", "none.json"], "none.json"),
        ([*RUN, *IMAGES, "--service-account", "My SA"], "submit.service_account='My SA'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(call, server, arguments, told):
    code, out, err = call("submit", *arguments, "--endpoint", server.url)
    assert (code, out) == (1, "")
    assert told in err
    assert err.startswith("error: ")
    assert server.requests == []


def test_waiting_follows_the_run_and_succeeds_with_it(submit, server, backend, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    backend.script = (Moment("RUNNING", {"ingest": "RUNNING"}), Moment("SUCCEEDED"))
    code, out, err = submit("--wait", "--run-name", "first")
    assert code == 0
    assert out.startswith("run first has succeeded: ")
    assert "ingest running" in err


def test_waiting_fails_with_the_run_and_names_step_and_reason(submit, backend, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    backend.script = (Moment("FAILED", {"train": "FAILED"}),)
    code, _, err = submit("--wait", "--run-name", "first")
    assert code == 1
    assert "error: run first has failed; step train: the reason is unknown: no access" in err
    code, out, _ = submit("--wait", "--json")
    assert (code, json.loads(out)["state"]) == (1, "FAILED")


def test_waiting_fails_when_the_run_is_cancelled(submit, backend, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    backend.script = (Moment("CANCELED"),)
    code, _, err = submit("--wait", "--run-name", "first")
    assert code == 1
    assert "run first was canceled" in err


def test_an_interrupted_wait_leaves_the_run_and_says_so(server, backend, tmp_path):
    backend.script = [Moment("RUNNING")] * 999
    arguments = ("submit", *RUN, *IMAGES, "--endpoint", server.url, "--wait")
    process = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=clean_environment(HOME=str(tmp_path), KUBECONFIG=str(tmp_path / "none")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts what runs in the background deaf to it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while "running" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    assert f"the run continues: {server.url}/#/runs/details/{backend.runs[0]['run_id']}" in err
    assert backend.runs[0]["state"] == "RUNNING"


def test_a_server_that_is_away_is_one_message(call):
    code, out, err = call("submit", *RUN, *IMAGES, "--endpoint", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert err.startswith("error: Kubeflow Pipelines at http://127.0.0.1:9 does not answer")
    assert len(err.splitlines()) == 1


def test_a_run_without_rights_is_one_message(submit, server):
    server.accidents.append(Accident("experiments", "403"))
    code, _, err = submit()
    assert code == 1
    assert "does not allow this (403)" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["create", "apply", "list", "pause", "resume", "delete"])
def test_every_verb_has_help_with_an_example(call, verb):
    code, out, _ = call("schedule", verb, "--help")
    assert code == 0
    assert f"Example: brainseg schedule {verb}" in out


def test_create_shows_the_next_five_times_and_makes_it(schedule, backend):
    code, out, err = create(schedule)
    assert (code, err) == (0, "")
    first, *times, last = out.splitlines()
    assert first == "nightly (0 3 * * *, in UTC) starts next at"
    assert len(times) == 5
    assert all(" 03:00 UTC = " in line for line in times)
    assert last == "nightly: create, with a new pipeline version"
    assert backend.recurring[0]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"


def test_times_are_shown_in_the_zone_of_this_machine_too(schedule, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        _, out, _ = create(schedule)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert " 03:00 UTC = " in out
    assert out.count(" 12:00 JST") == 5


@pytest.mark.parametrize(
    ("cron", "more", "told"),
    [
        ("0 0 31 2 *", [], "this date never occurs"),
        ("0 0 3 * * *", [], "has 6 fields, not five"),
        ("0 3 * * *", ["--timezone", "Europe/Berlin"], "summer time"),
        ("0 3 * * *", ["--no-mlflow-plugin"], "give --latest"),
    ],
)
def test_a_wrong_schedule_is_told_before_anything_is_sent(schedule, server, cron, more, told):
    code, _, err = create(schedule, *more, cron=cron)
    assert code == 1
    assert told in err
    assert server.requests == []


def test_a_wrong_name_is_told(schedule):
    code, _, err = create(schedule, name="ä-x")
    assert code == 1
    assert "must have a letter or a digit" in err


def test_create_replaces_and_dry_run_does_not(schedule, backend):
    create(schedule)
    code, out, _ = create(schedule, "--dry-run", cron="0 4 * * *")
    assert code == 0
    assert out.splitlines()[-2:] == ["nightly: replace", "nothing was changed (--dry-run)"]
    assert backend.recurring[0]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    create(schedule, cron="0 4 * * *")
    assert [one["mode"] for one in backend.recurring] == ["ENABLE"]


def test_apply_reads_a_file_and_prunes(schedule, backend, tmp_path):
    create(schedule, name="old")
    (tmp_path / "schedules.yaml").write_text(
        "schedules:\n- {name: weekly, cron: 0 3 * * SUN, source: 'synthetic:24',"
        " store: 's3://mri/x', preset: demo, latest: true}\n"
    )
    code, out, _ = schedule("apply", "schedules.yaml", *IMAGES, "--prune")
    assert code == 0
    assert out.splitlines()[-2:] == [
        "weekly: create",
        "old: delete, because the file does not list it",
    ]
    assert [one["display_name"] for one in backend.recurring] == ["weekly"]


def test_a_schedule_is_listed_paused_resumed_and_deleted(schedule, backend):
    assert schedule("list")[1] == "no schedules\n"
    create(schedule)
    assert "nightly                  0 3 * * *        next 20" in schedule("list")[1]
    assert schedule("pause", "nightly")[0] == 0
    assert "paused" in schedule("list")[1]
    code, out, _ = schedule("resume", "nightly")
    assert code == 0
    assert "if a start was missed, Kubeflow starts one run now" in out
    assert json.loads(schedule("list", "--json")[1])[0]["enabled"]
    assert schedule("delete", "nightly")[0] == 0
    assert backend.recurring == []
    code, _, err = schedule("pause", "nightly")
    assert (code, "no schedule 'nightly'; there are none" in err) == (1, True)


def test_duplicates_are_told_and_not_resumed(schedule, backend):
    create(schedule, "--paused")
    backend.recurring.append({**backend.recurring[0], "recurring_run_id": "twin"})
    assert "2 schedules are called nightly" in schedule("list")[2]
    code, _, err = schedule("resume", "nightly")
    assert code == 1
    assert "2 schedules are called 'nightly', and both would run" in err
    assert "(2 of this name)" in schedule("delete", "nightly")[1]
    assert backend.recurring == []


def test_a_schedule_that_others_made_is_listed_as_it_is(schedule, backend):
    create(schedule)
    backend.recurring[0]["trigger"] = {"periodic_schedule": {"interval_second": "60"}}
    assert "by an interval" in schedule("list")[1]


def test_the_cronjob_in_the_manifests_submits_a_retraining_by_digests(call, tmp_path):
    cronjob = yaml.safe_load((PROJECT / "manifests" / "schedules" / "cronjob.yaml").read_text())
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["brainseg", "submit"]
    (folder,) = [
        each["mountPath"] for each in container["volumeMounts"] if "digests" in each["name"]
    ]
    digests = dict.fromkeys(
        ("brainseg-data-python", "brainseg-trainer-python"), f"sha256:{'0' * 64}"
    )
    (tmp_path / "digests.json").write_text(json.dumps(digests))
    arguments = [each.replace(folder, str(tmp_path)) for each in container["args"]]
    code, out, err = call("submit", *arguments, "--dry-run", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["pipeline"], told["service_account"]) == ("brainseg-retraining", "brainseg-run")
    code, _, err = call("submit", *container["args"], "--dry-run", "--json")  # as not mounted here
    assert (code, "digests /etc/brainseg/digests.json cannot be read" in err) == (1, True)
