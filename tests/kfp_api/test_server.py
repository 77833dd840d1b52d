"""The test server as KFP's own client sees it: what it takes, what it refuses, with which words."""

import json
import warnings

import kfp
import kfp_server_api
import pytest
import urllib3
from kfp import compiler, dsl

from tests.kfp_api.backend import Backend, Moment
from tests.kfp_api.models import WrongAnswerError, check_answer, problems
from tests.kfp_api.server import Accident, serve


@dsl.component(base_image="registry.example/x:1")
def say(text: str, times: int, loud: bool = False) -> str:
    return text * times


@dsl.pipeline(name="said")
def said(text: str, times: int = 2, loud: bool = False):
    say(text=text, times=times, loud=loud)


@pytest.fixture
def server():
    with serve() as served:
        yield served


@pytest.fixture
def client(server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kfp.Client(host=server.url)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("said") / "said.yaml"
    compiler.Compiler().compile(said, str(path))
    return str(path)


@pytest.fixture
def version(client, package):
    pipeline = client.pipelines.pipeline_service_create_pipeline(
        kfp_server_api.V2beta1Pipeline(name="said")
    )
    return client.upload_pipeline_version(package, "said-1", pipeline_id=pipeline.pipeline_id)


@pytest.fixture
def run(client, version):
    def start(params, experiment="e"):
        group = client.create_experiment(experiment)
        return client.run_pipeline(
            group.experiment_id,
            "first",
            params=params,
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
        )

    return start


@pytest.fixture
def recur(client, version):
    def create(params=None, name="nightly", cron="0 0 3 * * *", **options):
        options = {"max_concurrency": 1, "no_catchup": True} | options
        return client.create_recurring_run(
            client.create_experiment("e").experiment_id,
            name,
            cron_expression=cron,
            params={"text": "x"} if params is None else params,
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
            **options,
        )

    return create


def refused(call, *values, **named):
    with pytest.raises(kfp_server_api.ApiException) as error:
        call(*values, **named)
    return error.value.status, json.loads(error.value.body)


def test_a_run_goes_through_its_states(server, client, run):
    server.backend.script = (Moment("RUNNING", {"say": "RUNNING"}), Moment("SUCCEEDED"))
    made = run({"text": "x"})
    assert made.state == "PENDING"
    ended = client.wait_for_run_completion(made.run_id, timeout=300, sleep_duration=0)
    assert ended.state == "SUCCEEDED"
    assert [status.state for status in ended.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert ended.run_details.task_details[0].display_name == "say"


def test_a_run_can_be_terminated(server, client, run):
    server.backend.script = [Moment("RUNNING")] * 9
    made = run({"text": "x"})
    client.terminate_run(made.run_id)
    states = [client.get_run(made.run_id).state for _ in range(2)]
    assert states[-1] == "CANCELED"
    status, body = refused(client.terminate_run, made.run_id)
    assert (status, body["code"]) == (400, 3)


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        (
            {},
            "parameter text is not optional, yet has neither default value nor user provided value",
        ),
        (
            {"text": 3},
            "input parameter text requires type string, but the input parameter is not of",
        ),
        ({"text": "x", "times": "3"}, "input parameter times requires type number_integer"),
        ({"text": "x", "loud": 1}, "input parameter loud requires type boolean"),
        ({"text": "x", "sauce": 1}, "parameter(s) provided are not required by pipeline: sauce"),
    ],
)
def test_missing_unknown_and_mistyped_parameters_are_refused(run, recur, params, shown):
    """validatePipelineJobInputs in backend/src/apiserver/template/v2_template.go."""
    for call in (run, recur):
        status, body = refused(call, params)
        assert (status, body["code"]) == (400, 3)
        assert body["details"][0]["message"].startswith(shown)
        assert "invalid pipeline job inputs: Invalid input error: " in body["message"]


@pytest.mark.parametrize("number", [0, 11, -1])
def test_concurrency_outside_1_to_10_is_refused(recur, number):
    """toModelJob in backend/src/apiserver/server/api_converter.go."""
    status, body = refused(recur, max_concurrency=number)
    assert status == 400
    shown = body["details"][0]["message"]
    assert shown.endswith(f"must be at least 1 and at most 10. Received {number}")


@pytest.mark.parametrize("cron", ["x", "0 0 3 * * 7", "CRON_TZ=UTC 0 0 3 * * *", "* * * *", ""])
def test_a_cron_that_robfig_does_not_read_is_refused(recur, cron):
    """toModelJob; an empty one never gets there by KFP's client."""
    if not cron:
        with pytest.raises(ValueError, match="required"):
            recur(cron=cron)
        return
    status, body = refused(recur, cron=cron)
    assert status == 400
    assert "Schedule cron is not a supported format" in body["message"]


@pytest.mark.parametrize("cron", ["0 3 * * *", "0 0 0 31 2 *", "@daily"])
def test_a_cron_that_robfig_reads_is_taken_though_it_is_a_trap(recur, cron):
    assert recur(cron=cron).trigger.cron_schedule.cron == cron


def test_several_recurring_runs_may_have_one_name(client, recur):
    """display_name is "Not unique" in backend/api/v2beta1/recurring_run.proto."""
    assert recur().recurring_run_id != recur().recurring_run_id
    assert len(client.list_recurring_runs().recurring_runs) == 2


def test_a_recurring_run_is_switched_and_deleted(client, recur):
    made = recur()
    assert (made.mode, made.status, made.max_concurrency) == ("ENABLE", "ENABLED", "1")
    client.disable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.delete_recurring_run(made.recurring_run_id)
    assert refused(client.get_recurring_run, made.recurring_run_id)[0] == 404


def test_a_name_that_becomes_no_name_in_kubernetes_is_refused(recur):
    """toSWFCRDResourceGeneratedName in backend/src/apiserver/template/template.go."""
    assert refused(recur, name="-x")[0] == 500
    assert recur(name="ночь").display_name == "ночь"


def test_empty_names_are_refused(client, recur):
    assert refused(recur, name="")[0] == 500
    service = client.pipelines.pipeline_service_create_pipeline
    assert refused(service, kfp_server_api.V2beta1Pipeline(name=""))[0] == 400


def test_taken_names_are_refused(client, version, package):
    """storage/pipeline_store.go; the unique index has no regard to case."""
    service = client.pipelines.pipeline_service_create_pipeline
    status, body = refused(service, kfp_server_api.V2beta1Pipeline(name="Said"))
    assert (status, body["code"]) == (409, 6)
    assert "The name Said already exist. Please specify a new name" in body["message"]
    upload = client.pipeline_uploads.upload_pipeline_version
    status, body = refused(upload, package, name="said-1", pipelineid=version.pipeline_id)
    shown = {"error_message": "Failed to create a pipeline version"}
    assert (status, body) == (409, shown | {"error_details": shown["error_message"]})


def test_a_text_that_is_no_pipeline_is_refused(client, version, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1")
    upload = client.pipeline_uploads.upload_pipeline_version
    status, body = refused(upload, str(path), name="x", pipelineid=version.pipeline_id)
    assert (status, body["error_message"]) == (400, "no pipeline spec is provided")


def test_unknown_ids_are_refused(client):
    assert refused(client.get_run, "x")[1]["details"][0]["message"] == "Run x not found"
    assert refused(client.get_pipeline_version, "p", "x")[0] == 404
    assert refused(client.pipelines.pipeline_service_get_pipeline_by_name, "x")[0] == 404


def test_an_unknown_field_is_refused(server):
    """common.CustomMarshaler in backend/src/apiserver/common/utils.go."""
    body = json.dumps({"display_name": "x", "sauce": 1})
    answer = urllib3.request("POST", f"{server.url}/apis/v2beta1/experiments", body=body)
    assert (answer.status, answer.json()["code"]) == (400, 3)
    assert 'unknown field "sauce"' in answer.json()["message"]


def test_wrong_plugin_inputs_are_refused(client, version):
    """ResolveMLflowPluginInput in backend/src/apiserver/plugins/mlflow/config.go."""
    reference = {"pipeline_id": version.pipeline_id}
    body = kfp_server_api.V2beta1Run(
        display_name="x",
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(**reference),
        plugins_input={"mlflow": {"experiment": "x"}},
    )
    assert refused(client.runs.run_service_create_run, body)[0] == 409


def test_many_users_have_namespaces():
    with serve(Backend(namespaces=frozenset({"mri"}))) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = kfp.Client(host=server.url, namespace="mri")
        assert client.create_experiment("e").namespace == "mri"
        status, body = refused(client.list_experiments, namespace="other")
        assert (status, body["code"]) == (403, 7)


def test_a_token_is_wanted():
    with serve(token="t") as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = kfp.Client(host=server.url, namespace="x", existing_token="t")
        assert client.list_pipelines().pipelines is None
        server.token = "u"
        assert refused(client.list_pipelines)[1]["code"] == 16


def test_a_cut_request_is_done_and_its_answer_lost(server, client):
    server.accidents.append(Accident("POST .*/experiments", "cut"))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        client.create_experiment("e")
    assert server.backend.experiments[0]["display_name"] == "e"


def test_what_a_proxy_answers_is_no_json(server, client):
    server.accidents.append(Accident("runs", "503"))
    with pytest.raises(kfp_server_api.ApiException) as error:
        client.get_run("x")
    assert (error.value.status, error.value.body) == (503, "upstream connect error")


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"sauce": 1}, "unknown field"),
        ({"run_id": 7}, "invalid value for str"),
        ({"state": "DONE"}, "invalid value for enum"),
        ({"created_at": "yesterday"}, "Timestamp"),
        ({"state_history": {}}, "no list"),
        ({"plugins_input": []}, "no map"),
        ({"runtime_config": 1}, "unexpected token"),
        ({"run_details": {"task_details": [{"state": 1}]}}, "enum field run_details"),
    ],
)
def test_a_wrong_answer_of_the_server_itself_is_found(answer, shown):
    with pytest.raises(WrongAnswerError, match=shown):
        check_answer("V2beta1Run", answer)


def test_large_numbers_are_strings_in_answers_and_either_in_requests():
    assert problems("V2beta1RecurringRun", {"max_concurrency": 1}) == []
    assert problems("V2beta1RecurringRun", {"max_concurrency": "1"}, answer=True) == []
    assert problems("V2beta1RecurringRun", {"max_concurrency": 1}, answer=True) != []
