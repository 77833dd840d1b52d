from dataclasses import replace

import pytest

from components.shared.errors import UserError
from pipelines.kubeflow.client import KubeflowError, connect
from pipelines.kubeflow.submit import find_experiment, submit
from tests.kfp_api.backend import Backend
from tests.kfp_api.models import problems
from tests.kfp_api.refusal import Code, Refusal
from tests.kfp_api.server import Accident, serve


def started(kubeflow, prepared, **changes):
    return submit(kubeflow, prepared, **({"name": "first", "experiment": "brainseg"} | changes))


def test_a_run_is_started_with_all_that_was_prepared(server, backend, kubeflow, prepared):
    submitted = started(kubeflow, prepared)
    (run,) = backend.runs
    assert run["run_id"] == submitted.run_id
    assert run["display_name"] == "first"
    assert run["runtime_config"]["parameters"] == prepared.arguments
    assert run["pipeline_version_reference"]["pipeline_version_id"] == submitted.version.version_id
    assert run["plugins_input"] == {"mlflow": {"experiment_name": "brainseg"}}
    assert "service_account" not in run
    assert submitted.link == f"{server.url}/#/runs/details/{run['run_id']}"


def test_the_service_account_is_that_of_the_order(backend, kubeflow, prepared):
    order = prepared.order.model_copy(update={"service_account": "brainseg-run"})
    started(kubeflow, replace(prepared, order=order))
    assert backend.runs[0]["service_account"] == "brainseg-run"


def test_the_default_experiment_is_made_once(backend, kubeflow, prepared):
    started(kubeflow, prepared)
    started(kubeflow, prepared)
    assert [one["display_name"] for one in backend.experiments] == ["brainseg"]
    assert len({run["experiment_id"] for run in backend.runs}) == 1


def test_an_experiment_that_another_process_has_just_made_is_found(monkeypatch, backend, kubeflow):
    from pipelines.kubeflow.submit import create_experiment

    create = Backend.create_experiment

    def late(self, given):
        create(self, given)
        return create(self, given)

    monkeypatch.setattr(Backend, "create_experiment", late)
    assert create_experiment(kubeflow, "brainseg") == backend.experiments[0]["experiment_id"]


def test_an_unknown_experiment_is_refused_before_anything_is_sent(server, kubeflow, prepared):
    with pytest.raises(UserError, match=r"no experiment 'brainsge'.*`kfp experiment create"):
        started(kubeflow, prepared, experiment="brainsge")
    assert server.sent() == []


def test_an_experiment_of_another_spelling_is_another(backend, kubeflow):
    backend.create_experiment({"display_name": "Tumours"})
    with pytest.raises(UserError, match="no experiment 'tumours'"):
        find_experiment(kubeflow, "tumours")


def test_an_archived_experiment_is_refused(backend, kubeflow):
    backend.create_experiment({"display_name": "old"})["storage_state"] = "ARCHIVED"
    with pytest.raises(UserError, match="archived: restore it"):
        find_experiment(kubeflow, "old")


def test_runs_of_many_users_are_in_their_namespace(prepared):
    with serve(Backend(namespaces=frozenset({"mri"}))) as server:
        started(connect(server.url, "mri"), prepared)
        assert server.backend.experiments[0]["namespace"] == "mri"
        assert server.backend.pipelines[0]["namespace"] == "mri"
        with pytest.raises(KubeflowError, match=r"in the namespace other \(403\).*not authorized"):
            started(connect(server.url, "other"), prepared)


def test_a_parameter_that_kubeflow_does_not_know_is_told(kubeflow, prepared):
    """The checks before make it impossible; a version that others uploaded need not agree."""
    wrong = replace(prepared, arguments={**prepared.arguments, "sauce": "x"})
    with pytest.raises(KubeflowError, match="not required by pipeline: sauce"):
        started(kubeflow, wrong)


def test_a_broken_connection_says_that_the_run_may_be_there(server, backend, kubeflow, prepared):
    server.accidents.append(Accident("POST .*/runs$", "cut"))
    with pytest.raises(
        KubeflowError, match=f"'first' may exist: look for it at {server.url}/#/runs before"
    ):
        started(kubeflow, prepared)
    assert len(backend.runs) == 1


def test_a_plugin_that_fails_is_told_and_stops_nothing(backend, kubeflow, prepared, caplog):
    backend.plugin = "broken"
    assert started(kubeflow, prepared).run_id
    assert "mlflow: connection refused" in caplog.text
    assert "switch it off with --no-mlflow-plugin" in caplog.text


def test_a_plugin_that_is_not_wanted_is_not_asked(backend, kubeflow, prepared, caplog):
    backend.plugin = "broken"
    order = prepared.order.model_copy(update={"mlflow_plugin": False})
    started(kubeflow, replace(prepared, order=order))
    assert caplog.text == ""


def test_an_installation_without_plugins_is_told(monkeypatch, kubeflow, prepared):
    def older(self, given):
        raise Refusal(Code.INVALID_ARGUMENT, 'proto: unknown field "plugins_input"', "")

    monkeypatch.setattr(Backend, "create_run", older)
    with pytest.raises(UserError, match=r"older than 2.17.*--mlflow-experiment ''"):
        started(kubeflow, prepared)


def test_the_request_is_as_kubeflows_models_say(backend, kubeflow, prepared):
    started(kubeflow, prepared)
    assert problems("V2beta1Run", backend.get_run(backend.runs[0]["run_id"]), answer=True) == []
