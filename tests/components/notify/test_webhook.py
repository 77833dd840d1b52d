import logging

import pytest

from components.notify.webhook import post
from tests.components.notify.conftest import SECRET


def send(url, attempts=3, timeout_s=5):
    return post(url, {"text": "a"}, timeout_s=timeout_s, attempts=attempts)


def test_sends_json(webhook):
    assert send(webhook.url)
    assert webhook.received == [{"text": "a"}]
    assert webhook.kinds == ["application/json"]


@pytest.mark.parametrize("busy", [429, 500, 503])
def test_tries_again_where_the_server_is_busy(webhook, busy):
    webhook.answers = [busy, busy, 200]
    assert send(webhook.url)
    assert len(webhook.received) == 3


def test_gives_up_after_some_attempts(webhook, caplog):
    webhook.answers = [503]
    assert not send(webhook.url, attempts=2)
    assert len(webhook.received) == 2
    assert "attempt 2 of 2: it answered 503" in caplog.text


@pytest.mark.parametrize("refusal", [301, 307, 400, 403, 404, 410])
def test_a_refusal_is_final_and_a_redirection_is_one(webhook, refusal, caplog):
    webhook.answers = [refusal]
    assert not send(webhook.url)
    assert len(webhook.received) == 1
    assert f"it answered {refusal}" in caplog.text


def test_a_server_that_never_answers_is_left(webhook, caplog):
    webhook.waits = True
    assert not send(webhook.url, attempts=1, timeout_s=0.2)
    assert "no answer (ReadTimeoutError)" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1/{SECRET}",
        f"https://127.0.0.1:1/{SECRET}",
        f"http://no-such-host.invalid/{SECRET}",
        f"http://user:{SECRET}@127.0.0.1:1/",
        f"http://[bad/{SECRET}",
        f"http:///{SECRET}",
        f"http://127.0.0.1:port/{SECRET}",
        f"ftp://host/{SECRET}",
        SECRET,
        f" http://127.0.0.1:1/{SECRET}\n",
    ],
)
def test_no_address_is_written_to_the_log(url, caplog):
    with caplog.at_level(logging.INFO):
        assert not send(url, attempts=2)
    assert caplog.records
    assert SECRET not in caplog.text


def test_a_new_line_at_the_end_of_a_secret_does_no_harm(webhook):
    assert send(f" {webhook.url}\n")


def test_a_refusal_does_not_write_it_either(webhook, caplog):
    webhook.answers = [500, 302]
    with caplog.at_level(logging.INFO):
        assert not send(webhook.url)
    assert SECRET not in caplog.text
