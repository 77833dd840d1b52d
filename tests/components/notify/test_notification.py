import logging

import pytest

from components.notify.notification import notify_people
from components.shared.storage.outcome import Outcome, leave_outcome
from components.shared.storage.store import open_store
from tests.components.notify.conftest import SECRET


@pytest.fixture
def store(tmp_path):
    opened = open_store(str(tmp_path / "store"))
    leave_outcome(opened, "one", Outcome(kind="unchanged", reason="as before", dataset_id="da7a"))
    return opened.uri


@pytest.fixture
def notify(store, webhook, caplog):
    def notify(pipeline_run="one", settings="", url=None, at=None):
        with caplog.at_level(logging.INFO):
            message = notify_people(
                at or store,
                pipeline_run,
                settings,
                run="nightly",
                webhook=webhook.url if url is None else url,
                mlflow_url="",
            )
        assert SECRET not in caplog.text
        return message

    return notify


def test_reports_to_the_log_and_the_webhook(notify, webhook, caplog):
    notify()
    assert "as before" in caplog.text
    assert webhook.received[0]["reason"] == "as before"


def test_without_a_webhook_the_log_has_it(notify, webhook, caplog):
    notify(url="")
    assert "as before" in caplog.text
    assert "BRAINSEG_WEBHOOK_URL" in caplog.text
    assert webhook.received == []


def test_endings_that_are_not_selected_are_not_sent(notify, webhook):
    notify(settings="endings: [failed, promoted]")
    assert webhook.received == []
    notify("unknown", settings="endings: [failed, promoted]")
    assert webhook.received[0]["ending"] == "failed"


def test_a_webhook_that_is_down_is_a_warning(notify, caplog):
    notify(url="http://127.0.0.1:1/hook", settings="{attempts: 1}")
    assert "the message was not sent; the run itself is not affected" in caplog.text


def test_a_store_that_cannot_be_read_is_reported(notify, webhook, tmp_path):
    (tmp_path / "file").touch()
    notify(at=str(tmp_path / "file"))
    assert webhook.received[0]["ending"] == "failed"
    assert "cannot be read: store" in webhook.received[0]["reason"]


def test_wrong_settings_are_a_warning(notify, webhook, caplog):
    notify(settings="form: pigeon")
    assert "notify.form='pigeon'" in caplog.text
    assert len(webhook.received) == 1


def test_the_former_name_of_a_setting_is_refused_with_the_present_one(notify, caplog):
    notify(settings="tell: [failed]")
    assert "notify.tell is now notify.endings" in caplog.text
