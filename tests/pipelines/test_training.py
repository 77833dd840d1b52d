import itertools

import pytest
from google.protobuf.json_format import MessageToDict

from pipelines.training import training


@pytest.fixture(scope="module")
def tasks():
    return MessageToDict(training.pipeline_spec)["root"]["dag"]["tasks"]


def test_the_data_set_version_is_an_input_of_every_later_step(tasks):
    for name, task in tasks.items():
        inputs = task["inputs"]["parameters"]
        assert name == "ingest" or inputs["dataset_id"]["taskOutputParameter"] == {
            "outputParameterKey": "Output",
            "producerTask": "ingest",
        }


def test_steps_run_in_the_order_of_the_design(tasks):
    order = ["ingest", "profile", "split", "train", "evaluate", "register"]
    for before, after in itertools.pairwise(order):
        assert before in tasks[after]["dependentTasks"]


def test_every_retry_of_training_knows_its_pipeline_run(tasks):
    value = tasks["train"]["inputs"]["parameters"]["pipeline_run"]["runtimeValue"]["constant"]
    assert value == "{{$.pipeline_job_uuid}}"


def test_all_settings_may_be_left_out():
    assert training.required_inputs == ["source", "store"]
