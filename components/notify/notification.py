"""The whole of the notify step: tells people how a pipeline run ended, and never fails."""

import logging

from components.notify.message import Message, make_message, payload, tell
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
    """Reads what a pipeline run's steps left, writes it to the log and to the webhook.

    Nothing that goes wrong here is an error: it is a warning in the log.

    Args:
        store: URI of the store.
        pipeline_run: Identity of the pipeline run.
        settings: YAML of `NotifySettings`; the defaults hold if it cannot be read.
        run: What people call the pipeline run.
        webhook: Where to send it; empty: nowhere.
        mlflow_url: MLflow's page, where the settings name none.

    Returns:
        What was told.
    """
    config = _settings(settings)
    message = make_message(
        run,
        pipeline_run,
        _read(store, pipeline_run),
        kubeflow_url=config.kubeflow_url,
        mlflow_url=config.mlflow_url or mlflow_url,
    )
    for line in tell(message).splitlines():
        logger.info("%s", line)
    if not webhook:
        logger.info("no webhook is set (BRAINSEG_WEBHOOK_URL): nothing is sent")
    elif message.ending not in config.tell:
        logger.info("notify.tell leaves out runs that end %s: nothing is sent", message.ending)
    elif post(
        webhook,
        payload(message, config.form),
        timeout_s=config.timeout_s,
        attempts=config.attempts,
    ):
        logger.info("sent to the webhook")
    else:
        logger.warning("nobody was told by the webhook; the run itself is not affected")
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
        return Failure(step="", reason=f"what became of the run cannot be read: {error}")
