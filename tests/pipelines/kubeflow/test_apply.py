import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from components.shared.errors import UserError
from pipelines.kubeflow.apply import apply_file, list_schedules, switch
from pipelines.kubeflow.client import KubeflowError
from pipelines.kubeflow.schedule import ScheduleFile
from tests.kfp_api.backend import Backend, Moment
from tests.kfp_api.refusal import Refusal
from tests.kfp_api.server import Accident
from tests.pipelines.kubeflow.conftest import nightly

NEW = ", with a new pipeline version"
BUSY, CUT = r"try again in a minute \(.*\)", "does not answer .* the port-forward"
PERHAPS = r"\. Perhaps no schedule 'nightly' is enabled now, so no runs start: repeat this command"
CHANGES = ("create_recurring", "switch", "delete_recurring")


@pytest.fixture
def apply(kubeflow, prepared):
    """Applies schedules; returns the lines that were told."""

    def run(*schedules, run=prepared, prune=False, dry_run=False, experiment="brainseg"):
        file, lines = ScheduleFile(schedules=schedules, experiment=experiment), []
        runs = {schedule.name: run for schedule in schedules}
        apply_file(kubeflow, file, runs, lines.append, prune=prune, dry_run=dry_run)
        return lines

    return run


@pytest.fixture
def watched(monkeypatch):
    """How many schedules are there and enabled, after each change."""
    seen = []

    def watch(method):
        def changed(self, *values):
            answer = method(self, *values)
            enabled = sum(one["mode"] == "ENABLE" for one in self.recurring)
            seen.append((len(self.recurring), enabled))
            return answer

        return changed

    for name in CHANGES:
        monkeypatch.setattr(Backend, name, watch(getattr(Backend, name)))
    return seen


def modes(backend):
    return [one["mode"] for one in backend.recurring]


def crons(backend):
    return [one["trigger"]["cron_schedule"]["cron"] for one in backend.recurring]


def test_a_schedule_is_made_and_enabled(backend, apply):
    assert apply(nightly()) == ["nightly: create" + NEW]
    (job,) = backend.recurring
    assert (job["mode"], job["max_concurrency"], job["no_catchup"]) == ("ENABLE", "1", True)
    assert job["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert job["experiment_id"] == backend.experiments[0]["experiment_id"]


def test_the_same_again_changes_nothing(server, backend, apply):
    apply(nightly(), nightly(name="weekly", cron="0 3 * * 7"))
    sent = len(server.sent())
    lines = apply(nightly(), nightly(name="weekly", cron="0 3 * * 7"))
    assert lines == ["nightly: unchanged", "weekly: unchanged"]
    assert len(server.sent()) == sent


def test_another_one_of_the_name_replaces_it_and_never_two_are_enabled(backend, apply, watched):
    apply(nightly())
    watched.clear()
    assert apply(nightly(cron="0 4 * * *")) == ["nightly: replace"]
    assert crons(backend) == ["0 0 4 * * *"]
    assert modes(backend) == ["ENABLE"]
    assert watched == [(2, 1), (2, 0), (2, 1), (1, 1)]


def test_a_changed_pipeline_replaces_a_pinned_schedule(backend, apply, changed):
    apply(nightly())
    assert apply(nightly(), run=changed) == ["nightly: replace" + NEW]
    version = backend.recurring[0]["pipeline_version_reference"]["pipeline_version_id"]
    assert version == backend.versions[-1]["pipeline_version_id"]


def test_a_changed_pipeline_is_followed_by_a_schedule_of_the_latest(backend, apply, changed):
    apply(nightly(latest=True))
    assert apply(nightly(latest=True), run=changed, dry_run=True) == ["nightly: unchanged" + NEW]
    assert apply(nightly(latest=True), run=changed) == ["nightly: unchanged" + NEW]
    run = backend.fire(backend.recurring[0]["recurring_run_id"])
    version = run["pipeline_version_reference"]["pipeline_version_id"]
    assert version == backend.versions[-1]["pipeline_version_id"]
    assert len(backend.versions) == 2


@pytest.mark.parametrize("latest", [False, True])
def test_the_controller_starts_runs_with_the_parameters(backend, apply, prepared, latest):
    apply(nightly(latest=latest))
    run = backend.fire(backend.recurring[0]["recurring_run_id"])
    assert run["runtime_config"]["parameters"] == prepared.arguments
    assert ("plugins_input" in run) == latest


def test_a_pinned_schedule_with_plugins_would_lose_its_parameters(backend, apply):
    """Why ours sends none: CreateJob in resource_manager.go at tag 2.17.0."""
    apply(nightly())
    job = backend.recurring[0]
    job["plugins_input"] = {"mlflow": {"experiment_name": "brainseg"}}
    with pytest.raises(Refusal, match=r"parameter .* is not optional"):
        backend.fire(job["recurring_run_id"])


def test_a_paused_one_is_made_disabled_and_can_be_resumed(backend, apply):
    apply(nightly(paused=True))
    assert modes(backend) == ["DISABLE"]
    assert apply(nightly()) == ["nightly: resume"]
    assert apply(nightly(paused=True)) == ["nightly: pause"]
    assert modes(backend) == ["DISABLE"]


def test_what_the_file_lacks_stays_unless_it_is_pruned(backend, apply):
    apply(nightly(), nightly(name="old"))
    foreign = {**backend.recurring[0], "recurring_run_id": "f", "display_name": "foreign"}
    backend.recurring.append(foreign | {"description": "made by hand"})
    assert apply(nightly()) == ["nightly: unchanged"]
    told = apply(nightly(), prune=True)
    assert told == ["nightly: unchanged", "old: delete, because the file does not list it"]
    assert sorted(one["display_name"] for one in backend.recurring) == ["foreign", "nightly"]


def test_pruning_spares_others_of_the_name(backend, apply):
    apply(nightly(), nightly(name="old"))
    backend.recurring.append(
        {**backend.recurring[1], "recurring_run_id": "f", "description": "made by hand"}
    )
    apply(nightly(), prune=True)
    assert [one["recurring_run_id"] for one in backend.recurring][1:] == ["f"]


def test_an_empty_file_prunes_only_its_own_experiment(backend, apply):
    backend.create_experiment({"display_name": "other"})
    apply(nightly())
    apply(nightly(name="theirs"), experiment="other")
    apply(prune=True)
    assert [one["display_name"] for one in backend.recurring] == ["theirs"]


def test_a_dry_run_tells_the_same_and_changes_nothing(server, backend, apply):
    assert apply(nightly(), dry_run=True) == ["nightly: create" + NEW]
    assert server.sent() == []
    apply(nightly(), nightly(name="old"))
    sent = len(server.sent())
    lines = apply(nightly(cron="0 4 * * *"), prune=True, dry_run=True)
    assert lines == ["nightly: replace", "old: delete, because the file does not list it"]
    assert apply(nightly(), dry_run=True) == ["nightly: unchanged"]
    assert len(server.sent()) == sent


def test_a_dry_run_knows_that_a_new_version_replaces(apply, changed):
    apply(nightly())
    assert apply(nightly(), run=changed, dry_run=True) == ["nightly: replace" + NEW]


def test_duplicates_are_told_and_mended(backend, apply, watched):
    apply(nightly())
    twin = {**backend.recurring[0], "recurring_run_id": "twin", "mode": "ENABLE"}
    backend.recurring.append(twin)
    watched.clear()
    assert apply(nightly()) == ["nightly: delete 1 more of this name"]
    assert modes(backend) == ["ENABLE"]
    assert watched == [(2, 1), (1, 1)]


def test_a_schedule_that_others_made_under_the_name_is_replaced(backend, apply):
    apply(nightly())
    backend.recurring[0]["description"] = "made by hand"
    assert apply(nightly()) == ["nightly: replace"]
    assert len(backend.recurring) == 1


def test_a_schedule_in_another_experiment_is_replaced_too(backend, apply):
    backend.create_experiment({"display_name": "other"})
    apply(nightly(), experiment="other")
    assert apply(nightly()) == ["nightly: replace"]
    assert modes(backend) == ["ENABLE"]


@pytest.mark.parametrize(
    ("asked", "kind", "enabled", "told"),
    [
        ("POST .*recurringruns$", "503", 1, BUSY),
        ("POST .*recurringruns$", "cut", 1, CUT),
        ("POST .*disable", "503", 1, BUSY + PERHAPS),
        ("POST .*disable", "cut", 0, CUT + PERHAPS),
        ("POST .*enable", "503", 0, BUSY + PERHAPS),
        ("POST .*enable", "cut", 1, CUT + PERHAPS),
        ("DELETE", "503", 1, BUSY),
        ("DELETE", "cut", 1, None),  # KFP's client asks again by itself
    ],
)
def test_what_was_cut_off_tells_if_none_may_be_enabled_and_is_mended_the_next_time(
    server, backend, apply, watched, asked, kind, enabled, told
):
    apply(nightly())
    watched.clear()
    server.accidents.append(Accident(asked, kind, times=1))
    expected = pytest.raises(KubeflowError, match=f"{told}$")
    with expected if told else contextlib.nullcontext():
        apply(nightly(cron="0 4 * * *"))
    assert server.accidents[0].times == 0
    assert modes(backend).count("ENABLE") == enabled
    apply(nightly(cron="0 4 * * *"))
    assert (crons(backend), modes(backend)) == (["0 0 4 * * *"], ["ENABLE"])
    assert all(there >= 1 and enabled <= 1 for there, enabled in watched)


def test_a_paused_one_that_is_cut_off_needs_no_other(server, backend, apply):
    apply(nightly())
    server.accidents.append(Accident("POST .*disable", "cut"))
    with pytest.raises(KubeflowError, match=f"{CUT}$"):
        apply(nightly(paused=True))
    assert modes(backend) == ["DISABLE"]


def test_what_kubeflow_refuses_leaves_the_old_one_alone(backend, apply, prepared):
    apply(nightly())
    wrong = replace(prepared, arguments={**prepared.arguments, "sauce": "x"})
    with pytest.raises(KubeflowError, match="not required by pipeline: sauce"):
        apply(nightly(), run=wrong)
    assert (crons(backend), modes(backend)) == (["0 0 3 * * *"], ["ENABLE"])


def test_two_at_once_leave_one(monkeypatch, backend, apply):
    both_have_looked, create = threading.Barrier(2, timeout=300), Backend.create_recurring

    def meet(self, given):
        both_have_looked.wait()
        return create(self, given)

    monkeypatch.setattr(Backend, "create_recurring", meet)
    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(apply, nightly()) for _ in range(2)]:
            error = result.exception()
            assert error is None or isinstance(error, UserError)
    apply(nightly())
    assert modes(backend) == ["ENABLE"]


def test_runs_of_a_replaced_schedule_go_on(backend, apply):
    """Kubernetes would delete their workflows with it: they are owned by it."""
    backend.script = (Moment("RUNNING"), Moment("RUNNING"), Moment("SUCCEEDED"))
    apply(nightly())
    run = backend.fire(backend.recurring[0]["recurring_run_id"])
    backend.get_run(run["run_id"])
    apply(nightly(cron="0 4 * * *"))
    assert backend.get_run(run["run_id"])["state"] == "RUNNING"


def test_a_schedule_is_listed_as_it_is(kubeflow, apply):
    apply(nightly(), nightly(name="weekly", cron="0 3 * * 7", latest=True, paused=True))
    first, second = list_schedules(kubeflow)
    assert (first.name, first.five_fields, first.enabled) == ("nightly", "0 3 * * *", True)
    assert (second.name, second.five_fields, second.enabled) == ("weekly", "0 3 * * 0", False)
    assert first.pipeline_version_id
    assert second.pipeline_version_id == ""


def test_a_schedule_can_be_switched(backend, kubeflow, apply):
    apply(nightly())
    switch(kubeflow, list_schedules(kubeflow)[0], enabled=False)
    assert modes(backend) == ["DISABLE"]


def test_more_schedules_than_a_page_holds_are_all_seen(backend, apply):
    apply(*(nightly(name=f"s{number}") for number in range(3)))
    rows = [
        {**backend.recurring[0], "display_name": f"x{n}", "recurring_run_id": f"x{n}"}
        for n in range(120)
    ]
    backend.recurring[:0] = rows
    assert apply(*(nightly(name=f"s{number}") for number in range(3))) == [
        f"s{number}: unchanged" for number in range(3)
    ]
