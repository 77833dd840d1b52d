"""Notify step: reports the end of a pipeline run, and never fails."""

import logging

from components.notify.message import Message, make_message, message_text, payload
from components.notify.settings import NotifySettings
from components.notify.webhook import post
from components.shared.config import parse_config
from components.shared.errors import UserError
from components.shared.storage.outcome import Failure, Outcome, read_outcome
from components.shared.storage.store import open_store

logger = logging.getLogger(__name__)


def notify_people(
    store: str,
    pipeline_run: str,
    settings: str,
    *,
    run: str,
    webhook: str,
    mlflow_url: str,
) -> Message:
    """Logs the outcome of a pipeline run, and sends it to a webhook.

    All problems are logged as warnings instead of being raised.

    Args:
        store: URI of the store.
        pipeline_run: Id of the pipeline run.
        settings: YAML of `NotifySettings`; invalid settings are replaced by the defaults.
        run: Name of the pipeline run.
        webhook: Address of the webhook; empty to send nothing.
        mlflow_url: Address of the MLflow UI, used if the settings have none.

    Returns:
        The message.
    """
    config = _settings(settings)
    message = make_message(
        run,
        pipeline_run,
        _read(store, pipeline_run),
        kubeflow_url=config.kubeflow_url,
        mlflow_url=config.mlflow_url or mlflow_url,
    )
    for line in message_text(message).splitlines():
        logger.info("%s", line)
    if not webhook:
        logger.info("no message is sent: BRAINSEG_WEBHOOK_URL is not set")
    elif message.ending not in config.endings:
        logger.info("no message is sent: notify.endings does not include %s", message.ending)
    elif post(
        webhook,
        payload(message, config.form),
        timeout_s=config.timeout_s,
        attempts=config.attempts,
    ):
        logger.info("sent the message to the webhook")
    else:
        logger.warning("the message was not sent; the run itself is not affected")
    return message


def _settings(text: str) -> NotifySettings:
    try:
        return parse_config(NotifySettings, text, "notify")
    except UserError as error:
        logger.warning("%s; the defaults are used", error)
        return NotifySettings()


def _read(store: str, pipeline_run: str) -> Outcome | Failure | None:
    try:
        return read_outcome(open_store(store), pipeline_run)
    except UserError as error:
        logger.warning("%s", error)
        return Failure(step="", reason=f"the outcome of the run cannot be read: {error}")
