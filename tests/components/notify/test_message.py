from components.notify.message import make_message, message_text, payload
from components.shared.storage.outcome import Failure, Outcome

PROMOTED = Outcome(
    kind="promoted",
    reason="mean Dice 0.84 <= the champion's & more",
    dataset_id="da7a",
    model="models:/brainseg/4",
    experiment_id="1",
    mlflow_run_id="abc",
    headline="patient Dice 0.836 over 14 test patients (95 % interval 0.777 to 0.881)",
    metrics={"patient_dice_mean": 0.836},
)
PLACES = {"kubeflow_url": "https://kf.example/pipeline/", "mlflow_url": "https://mlflow.example/"}


def message(found, **places):
    return make_message("nightly", "the-run", found, **places)


def test_a_new_champion():
    assert message_text(message(PROMOTED, **PLACES)).splitlines() == [
        "nightly: new champion",
        "mean Dice 0.84 <= the champion's & more",
        "patient Dice 0.836 over 14 test patients (95 % interval 0.777 to 0.881)",
        "Kubeflow run: https://kf.example/pipeline/#/runs/details/the-run",
        "MLflow run: https://mlflow.example/#/experiments/1/runs/abc",
    ]


def test_a_failure_names_step_and_reason():
    failure = Failure(step="profile", reason="3 patients")
    assert message_text(message(failure)).splitlines() == [
        "nightly: failed in step profile",
        "3 patients",
    ]


def test_a_failure_without_a_stored_reason():
    found = message(None, **PLACES)
    assert found.ending == "failed"
    assert "no step stored a reason" in message_text(found)
    assert "runs/details/the-run" in message_text(found)


def test_a_local_mlflow_has_no_link():
    found = message(PROMOTED, mlflow_url="sqlite:////home/me/mlflow.db")
    assert found.links == {}


def test_a_password_in_mlflows_address_is_not_shown():
    found = message(PROMOTED, mlflow_url="https://me:s3cret@mlflow.example")
    assert found.links == {"MLflow run": "https://mlflow.example/#/experiments/1/runs/abc"}


def test_json_has_every_value_and_the_text():
    sent = payload(message(PROMOTED), "json")
    assert sent["ending"] == "promoted"
    assert sent["metrics"] == {"patient_dice_mean": 0.836}
    assert sent["model"] == "models:/brainseg/4"
    assert sent["text"] == message_text(message(PROMOTED))


def test_slack_gets_one_text_without_its_own_signs():
    sent = payload(message(PROMOTED), "slack")
    assert list(sent) == ["text"]
    assert "0.84 &lt;= the champion's &amp; more" in sent["text"]
