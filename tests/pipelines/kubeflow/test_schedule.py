from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.errors import UserError
from pipelines.kubeflow.schedule import (
    Existing,
    ScheduleFile,
    digest_of,
    duplicates,
    plan,
    read_schedules,
    recurring_run,
    removal,
    unlisted,
    with_name,
)
from pipelines.kubeflow.upload import Uploaded
from tests.pipelines.kubeflow.conftest import nightly

VERSION = Uploaded("p1", "v1", "brainseg-training-1", is_new=False)
THERE = Existing(
    id="1",
    name="nightly",
    enabled=True,
    cron="0 0 3 * * *",
    pipeline_version_id="v1",
    experiment_id="e1",
    digest="d1",
    created_at="2026-11-25",
)


def body(prepared, **changes):
    return recurring_run(nightly(**changes), prepared, VERSION, "e1")


def test_a_schedule_is_sent_as_the_controller_needs_it(prepared):
    sent = body(prepared, cron="0 3 * * 7")
    assert sent.trigger.cron_schedule.cron == "0 0 3 * * 0"
    assert (sent.max_concurrency, sent.no_catchup, sent.mode) == ("1", True, "DISABLE")
    assert sent.runtime_config.parameters == prepared.arguments


def test_a_pinned_schedule_names_its_version_and_no_plugins(prepared):
    """KFP 2.17.0 would lose its parameters; test_apply fires one."""
    sent = body(prepared)
    assert sent.pipeline_version_reference.pipeline_version_id == "v1"
    assert sent.plugins_input is None


def test_a_schedule_of_the_latest_names_no_version(prepared):
    sent = body(prepared, latest=True)
    assert sent.pipeline_version_reference.pipeline_id == "p1"
    assert sent.pipeline_version_reference.pipeline_version_id is None
    assert sent.plugins_input == {"mlflow": {"experiment_name": "brainseg"}}


def test_only_a_schedule_of_the_latest_leaves_the_plugin_out(prepared):
    sent = body(prepared, latest=True, mlflow_plugin=False)
    assert sent.plugins_input == {"mlflow": {"disabled": True}}
    with pytest.raises(ValueError, match="give --latest"):
        nightly(mlflow_plugin=False)


@pytest.mark.parametrize(
    "change", [{"cron": "0 4 * * *"}, {"latest": True}, {"service_account": "x"}]
)
def test_its_digest_changes_with_what_it_is(prepared, change):
    assert digest_of(body(prepared)) == digest_of(body(prepared)) != ""
    assert digest_of(body(prepared)) != digest_of(body(prepared, **change))


def test_a_description_of_others_holds_no_digest(prepared):
    sent = body(prepared)
    sent.description = "mine"
    assert digest_of(sent) == ""
    sent.description = None
    assert digest_of(sent) == ""


@pytest.mark.parametrize("name", ["", " ", "-x", "äöü-x", "a\nb", "\u202ex"])
def test_a_name_that_kubeflow_would_not_take_is_refused(name):
    with pytest.raises(ValueError, match="before any hyphen"):
        nightly(name=name)


@pytest.mark.parametrize("name", ["Nightly training!", "ночь", "a-b", "9"])
def test_a_name_that_kubeflow_takes_is_taken(name):
    assert nightly(name=name).name == name


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ([], "create"),
        ([THERE], "unchanged"),
        ([replace(THERE, digest="old")], "replace"),
        ([replace(THERE, enabled=False)], "resume"),
        ([THERE, replace(THERE, id="2")], "delete 1 more of this name"),
        ([replace(THERE, digest="x"), replace(THERE, digest="y")], "replace, delete 1 more"),
        ([replace(THERE, name="Nightly")], "create"),
    ],
)
def test_what_has_to_be_done_is_told(there, told):
    assert str(plan("nightly", "d1", there, enabled=True)).startswith(told)


def test_what_has_to_be_done_for_a_paused_one_is_told():
    assert str(plan("nightly", "d1", [THERE], enabled=False)) == "pause"
    assert str(removal("nightly", [THERE])) == "delete"


SCHEDULES = st.builds(
    Existing,
    id=st.uuids().map(str),
    name=st.sampled_from(["nightly", "weekly"]),
    enabled=st.booleans(),
    cron=st.just("0 0 3 * * *"),
    pipeline_version_id=st.just("v1"),
    experiment_id=st.just("e1"),
    digest=st.sampled_from(["d1", "d2", ""]),
    created_at=st.sampled_from(["1", "2"]),
)


@given(st.lists(SCHEDULES, max_size=6), st.booleans())
def test_one_of_a_name_stays_and_others_names_are_not_touched(there, enabled):
    change = plan("nightly", "d1", there, enabled=enabled)
    same = {one.id for one in there if one.name == "nightly"}
    kept = {change.keep.id} if change.keep else set()
    assert {one.id for one in change.delete} == same - kept
    assert {one.id for one in change.disable} == {one.id for one in change.delete if one.enabled}
    assert change.create == (not kept)


@given(st.permutations([replace(THERE, id=str(n), created_at=str(n % 2)) for n in range(4)]))
def test_who_ever_looks_keeps_the_same_one_of_equals(there):
    assert plan("nightly", "d1", there, enabled=True).keep.id == "0"


def test_others_of_the_experiment_that_were_made_here_can_be_pruned():
    file = ScheduleFile(schedules=(nightly(),))
    old, foreign = replace(THERE, name="old"), replace(THERE, name="foreign", digest="")
    elsewhere = replace(THERE, name="elsewhere", experiment_id="e2")
    assert unlisted(file, [THERE, old, foreign, elsewhere], "e1") == [old]


def test_duplicates_are_counted():
    assert duplicates([THERE, THERE, replace(THERE, name="one")]) == {"nightly": 2}


def test_a_name_that_there_is_not_is_told_with_those_that_there_are():
    assert with_name([THERE], "nightly") == [THERE]
    with pytest.raises(UserError, match="no schedule 'nigthly'; there are nightly"):
        with_name([THERE], "nigthly")
    with pytest.raises(UserError, match="there are none"):
        with_name([], "x")


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 0 3 * * *", "0 3 * * *"),
        ("0 3 * * *", "3 * * * *"),  # five fields are read with seconds: every hour
        ("5 0 3 * * *", "5 0 3 * * *"),
        ("@daily", "@daily"),
        ("", "by an interval"),
    ],
)
def test_a_cron_is_shown_as_the_controller_reads_it(cron, told):
    assert replace(THERE, cron=cron).five_fields == told


def test_a_file_is_read_and_checked(tmp_path):
    path = tmp_path / "schedules.yaml"
    path.write_text(
        """
experiment: brainseg
schedules:
- name: nightly
  cron: 0 3 * * *
  source: s3://mri/raw
  store: s3://mri/brainseg
  preset: standard
  set: [train.schedule.epochs=30]
  profile: gpu
"""
    )
    (schedule,) = read_schedules(path).schedules
    assert (schedule.name, schedule.set) == ("nightly", ("train.schedule.epochs=30",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schedules: [", "not valid YAML"),
        ("[]", "must have a list `schedules:`"),
        ("schedule: []", "schedule is not a setting"),
        ("schedules: {a: b}", "a list"),
        ("schedules: [a]", "a list"),
        ("schedules: [{name: a, cron: x}]", "schedule a.source: Field required"),
        (
            "schedules: [{name: a, cron: x, source: s, store: t, sauce: 1}]",
            "schedule a.sauce is not a setting",
        ),
        ("schedules: [{name: a, cron: 0 0 31 2 *, source: s, store: t}]", "date never occurs"),
        (
            "schedules: [{name: a, cron: 0 3 * * *, timezone: Europe/Berlin, source: s, store: t}]",
            "summer time",
        ),
        (
            "schedules: [" + 2 * "{name: a, cron: 0 3 * * *, source: s, store: t}," + "]",
            "must have different names, but repeated",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_message(tmp_path, text, told):
    path = tmp_path / "schedules.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        read_schedules(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_schedules(tmp_path / "none.yaml")
