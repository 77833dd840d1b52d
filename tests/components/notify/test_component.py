import pytest
from kfp import dsl

from components.notify.component import notify
from components.shared.errors import UserError
from components.shared.storage.outcome import leaving_failure
from components.shared.storage.store import open_store

STATUS = dsl.PipelineTaskFinalStatus(
    state="FAILED",
    pipeline_job_resource_name="nightly-x7k2p-1",
    pipeline_task_name="b",
    error_code=None,
    error_message=None,
)


def run(store, name="nightly"):
    notify.python_func(
        store=store,
        pipeline_run="a name that the environment overrides",
        run=name,
        settings="form: slack",
        status=STATUS,
    )


def test_the_address_comes_from_the_environment_alone(tmp_path, monkeypatch, webhook, capfd):
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(UserError), leaving_failure(store.uri, "the run", "train"):
        raise UserError("the loss is NaN")
    monkeypatch.setenv("KFP_RUN_ID", "the run")
    monkeypatch.setenv("BRAINSEG_WEBHOOK_URL", webhook.url)
    run(store.uri)
    (sent,) = webhook.received
    assert sent == {"text": "nightly: failed in step train\nthe loss is NaN"}
    found = capfd.readouterr().err
    assert "notify: sent the message to the webhook" in found
    assert webhook.url not in found


def test_a_scheduled_run_has_the_name_of_its_workflow(tmp_path, monkeypatch, webhook):
    """KFP leaves the display name of such a run empty."""
    monkeypatch.setenv("BRAINSEG_WEBHOOK_URL", webhook.url)
    run(str(tmp_path / "store"), name="")
    (sent,) = webhook.received
    assert sent["text"].startswith("nightly-x7k2p-1: failed")
