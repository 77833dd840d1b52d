"""The retraining graph: its YAML, and whole runs in real processes as a schedule starts them."""

import json

import pytest
from google.protobuf.json_format import MessageToDict

from pipelines.placement.profiles import load_profile
from pipelines.retraining import retraining
from tests.components.notify.conftest import Webhook

_SETTINGS = (
    "train.network.image_size=32",
    "train.schedule.epochs=1",
    "train.schedule.validate_every_epochs=1",
    "register.min_patient_dice=0",  # a moment of training is no good model
    "profile.montage_volumes=0",
    "evaluate.overlay_volumes=1",
    "train.compute.threads=1",  # without looking for the fastest
)


@pytest.fixture(scope="module")
def spec():
    return MessageToDict(retraining.pipeline_spec)


class TestCompiled:
    def test_people_are_told_whatever_happens(self, spec):
        tasks = spec["root"]["dag"]["tasks"]
        assert set(tasks) == {"exit-handler-1", "notify"}
        assert tasks["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"

    def test_nothing_is_learned_unless_something_is_new(self, spec):
        tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
        assert set(tasks) == {"ingest", "check-data", "condition-2"}
        condition = tasks["condition-2"]["triggerPolicy"]["condition"]
        assert condition.endswith("'pipelinechannel--check-data-Output'] == 'changed'")
        learned = spec["components"]["comp-condition-2"]["dag"]["tasks"]
        assert set(learned) == {"profile", "split", "train", "evaluate", "register"}

    def test_the_webhook_is_known_to_notify_alone(self):
        pods = load_profile("cpu").steps
        names = {
            step: {secret.name for secret in settings.secrets} for step, settings in pods.items()
        }
        assert [step for step in names if "brainseg-webhook" in names[step]] == ["notify"]
        assert "brainseg-store" in names["notify"]

    def test_the_webhooks_address_is_no_parameter(self, spec):
        parameters = spec["root"]["inputDefinitions"]["parameters"]
        assert not [name for name in parameters if "webhook" in name or "url" in name]
        assert retraining.required_inputs == ["source", "store"]


class Down:
    url = "http://127.0.0.1:1/n0b0dy-may-read-th1s"


def _run(brainseg, folder, source, output, webhook, *options):
    settings = [part for change in _SETTINGS for part in ("--set", change)]
    return brainseg(
        *("run", "--pipeline", "retraining", "--source", source, "--preset", "demo"),
        *("--output", output, "--json", *settings, *options),
        cwd=folder,
        BRAINSEG_WEBHOOK_URL=webhook.url,
    )


@pytest.fixture(scope="module")
def webhook():
    opened = Webhook()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def first(folder, brainseg, webhook):
    """Nothing is there yet."""
    return _run(brainseg, folder, "synthetic:10,seed=3", "first", webhook), webhook.received[-1]


@pytest.fixture(scope="module")
def same(first, folder, brainseg):
    """The next night, with the same source, and a webhook that is down."""
    settings = ("--set", "notify.attempts=1")
    return _run(brainseg, folder, "synthetic:10,seed=3", "same", Down, *settings)


@pytest.fixture(scope="module")
def grown(same, folder, brainseg, webhook):
    """Patients came."""
    return _run(brainseg, folder, "synthetic:16,seed=3", "grown", webhook), webhook.received[-1]


def _task(folder, name, file):
    (found,) = (folder / name / "pipeline").glob(f"*/{file}")
    return found


@pytest.mark.slow
def test_the_first_run_makes_a_champion(first):
    run, told = first
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)["outcome"]
    assert outcome["kind"] in ("promoted", "rejected")
    assert outcome["model"] == "models:/brainseg/1"
    assert (told["ending"], told["reason"]) == (outcome["kind"], outcome["reason"])
    assert "patient Dice" in told["headline"]
    assert {"patient_dice_mean", "patient_dice_mean_ci_low"} <= set(told["metrics"])


@pytest.mark.slow
def test_an_unchanged_source_ends_early_and_green(first, same, folder):
    assert same.returncode == 0, same.stderr
    result = json.loads(same.stdout)
    assert result["outcome"]["kind"] == "unchanged"
    assert "nothing new to train on" in result["outcome"]["reason"]
    assert f"  {result['outcome']['reason']}" in same.stderr.splitlines()  # of notify
    assert list(result["seconds"]) == ["ingest", "check-data", "notify", "total"]
    assert result == json.loads((folder / "same" / "result.json").read_text())


@pytest.mark.slow
def test_a_webhook_that_is_down_fails_nothing_and_stays_a_secret(same, folder):
    assert "the message was not sent; the run itself is not affected" in same.stderr
    files = [path for path in (folder / "same").rglob("*") if path.is_file()]
    written = [path.read_bytes() for path in [*files, *(folder / "brainseg-runs").rglob("*.json")]]
    assert not any(b"n0b0dy-may-read-th1s" in text for text in written)
    assert "n0b0dy-may-read-th1s" not in same.stderr + same.stdout


@pytest.mark.slow
def test_new_patients_are_learned_from_and_everyone_keeps_the_part(first, grown, folder):
    run, told = grown
    assert run.returncode == 0, run.stderr
    assert told["ending"] in ("promoted", "rejected")
    assert told["model"] == "models:/brainseg/2"
    before = json.loads(_task(folder, "first", "split/split").read_text())
    now = json.loads(_task(folder, "grown", "split/split").read_text())
    assert sum(map(len, now.values())) == 16
    for part, patients in before.items():
        assert set(patients) <= set(now[part])
    drift = json.loads(_task(folder, "grown", "profile/profile").read_text())["drift"]
    assert (drift["arrived"], drift["left"], drift["changed"]) == (6, 0, 0)
    assert "Drift" in _task(folder, "grown", "profile/report").read_text()
    assert json.loads(_task(folder, "first", "profile/profile").read_text())["drift"] is None


@pytest.mark.slow
def test_a_failure_is_told_too_and_the_run_has_failed(same, folder, brainseg, webhook):
    limit = ("--set", "profile.min_patients=50", "--parameter", "force=true")
    failed = _run(brainseg, folder, "synthetic:10,seed=3", "failed", webhook, *limit)
    assert failed.returncode == 1
    assert "step profile" in failed.stderr
    told = webhook.received[-1]
    assert (told["ending"], told["step"]) == ("failed", "profile")
    assert told["reason"].startswith("profile: this data set is not fit for training. patients")
