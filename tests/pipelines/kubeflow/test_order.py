import pytest

from components.shared.errors import UserError
from pipelines.kubeflow.order import plugins_input, prepare
from pipelines.placement.images import Images
from tests.pipelines.kubeflow.conftest import IMAGES, ORDER


def refused(match, images=IMAGES, **changes):
    with pytest.raises(UserError, match=match):
        prepare(ORDER.model_copy(update=changes), images, run_name="")


def test_a_run_is_prepared_with_everything_that_pods_need(prepared):
    assert prepared.arguments["source"] == "synthetic:24"
    assert prepared.arguments["run_name"] == "demo"
    assert '"epochs":16' in prepared.arguments["train_settings"]
    assert prepared.steps == {"ingest", "profile", "split", "train", "evaluate", "register"}
    assert "registry.example/team/brainseg-data-python:" in prepared.package.text
    assert prepared.package.version.startswith("brainseg-training-")


@pytest.mark.parametrize("source", ["data", "/data/lgg.zip", "~/lgg", "file:///data", ""])
def test_a_source_on_this_machine_is_refused(source):
    refused("on this machine only, or is not understood; give dataset:ID, kaggle:", source=source)


def test_a_source_of_a_wrong_form_is_refused():
    refused("synthetic:PATIENTS", source="synthetic:none")
    refused("names no bucket", source="s3://")
    refused("kaggle:owner/dataset", source="kaggle:x")


@pytest.mark.parametrize("source", ["s3://mri/raw", "kaggle:mateuszbuda/lgg-mri-segmentation"])
def test_a_source_that_pods_see_is_taken(source, prepared):
    made = prepare(ORDER.model_copy(update={"source": source}), IMAGES, run_name="")
    assert made.arguments["source"] == source
    assert made.package == prepared.package  # what is run is no part of the pipeline


@pytest.mark.parametrize("store", ["store", "/data/store", "", "gs://bucket/x"])
def test_a_store_that_is_a_folder_is_refused(store):
    refused("every pod needs it; give s3://bucket/prefix", store=store)


def test_a_store_without_a_bucket_is_refused():
    refused("names no bucket", store="s3://")


def test_an_image_without_a_registry_is_refused():
    refused("'brainseg-data-python:.*has no registry.*--registry", images=Images())
    refused("has no registry", images=Images(registry="team"))


@pytest.mark.parametrize("registry", ["registry.example", "localhost/x", "registry:5000/team"])
def test_an_image_with_a_registry_is_taken(registry):
    prepare(ORDER, Images(registry=registry), run_name="")


def test_an_unknown_pipeline_is_refused_with_those_that_there_are():
    refused(
        r"no pipeline 'trainig' \(nearest: training\); there are comparison", pipeline="trainig"
    )


def test_an_unknown_profile_is_refused():
    refused("turbo", profile="turbo")


def test_a_wrong_setting_is_refused():
    refused("train.epochs is now train.schedule.epochs", set=("train.epochs=1",))
    refused("no preset 'nope'", preset="nope")


def test_an_unknown_parameter_is_refused():
    refused("has no parameter sauce; it has source", parameters={"sauce": "x"})


@pytest.mark.parametrize("value", [3, True, None, ["x"], {"a": 1}])
def test_a_parameter_of_another_type_is_refused(value):
    refused("parameter run_name=.* must be of the type String", parameters={"run_name": value})


def test_a_parameter_can_be_given():
    order = ORDER.model_copy(update={"parameters": {"run_name": "mine"}})
    assert prepare(order, IMAGES, run_name="demo").arguments["run_name"] == "mine"


def test_retraining_is_prepared_as_any_pipeline():
    changes = {"pipeline": "retraining", "parameters": {"force": True}}
    made = prepare(ORDER.model_copy(update=changes), IMAGES, run_name="nightly")
    assert made.package.name == "brainseg-retraining"
    assert made.arguments["force"] is True
    assert "notify_settings" in made.arguments
    assert made.steps >= {"ingest", "check-data", "train", "register", "notify"}
    refused("force='yes' must be of the type Boolean", **changes | {"parameters": {"force": "yes"}})


@pytest.mark.parametrize("change", ["notify.x=1", "drift.x=1"])
def test_a_setting_of_another_pipelines_step_is_refused(change):
    refused("STEP one of ingest", set=(change,))


def test_the_mlflow_experiment_is_named_as_the_plugin_reads_it():
    assert plugins_input(ORDER) == {"mlflow": {"experiment_name": "brainseg"}}
    assert plugins_input(ORDER.model_copy(update={"mlflow_experiment": ""})) is None


def test_the_plugin_is_left_out_for_those_who_have_a_server_of_their_own():
    assert plugins_input(ORDER.model_copy(update={"mlflow_plugin": False})) == {
        "mlflow": {"disabled": True}
    }
