"""Messages about the end of a pipeline run."""

import html
from collections.abc import Mapping
from typing import Any

from components.notify.settings import Ending
from components.shared.config import Record
from components.shared.storage.outcome import Failure, Outcome

_ENDINGS: Mapping[Ending, str] = {
    "unchanged": "nothing to do",
    "promoted": "new champion",
    "rejected": "not promoted",
    "predicted": "new predictions",
    "failed": "failed",
}


class Message(Record):
    """Report on the end of a pipeline run.

    Attributes:
        run: Name of the pipeline run.
        pipeline_run: Id of the pipeline run.
        ending: Outcome of the run.
        reason: Reason in words.
        step: Name of the step that failed, if known.
        dataset_id: Id of the data set version.
        model: URI of the version that was decided about.
        headline: Score of the version in words, with its interval.
        metrics: Score of the version as numbers.
        links: Addresses of pages with details, by name.
    """

    run: str
    pipeline_run: str
    ending: Ending
    reason: str
    step: str = ""
    dataset_id: str = ""
    model: str = ""
    headline: str = ""
    metrics: Mapping[str, float] = {}
    links: Mapping[str, str] = {}


def make_message(
    run: str,
    pipeline_run: str,
    found: Outcome | Failure | None,
    *,
    kubeflow_url: str = "",
    mlflow_url: str = "",
) -> Message:
    """Composes a message from the outcome of a pipeline run.

    Args:
        run: Name of the pipeline run.
        pipeline_run: Id of the pipeline run.
        found: Outcome or failure that the steps stored; `None` if they stored nothing.
        kubeflow_url: Address of the Kubeflow Pipelines UI.
        mlflow_url: Address of the MLflow UI.
    """
    page = kubeflow_url.rstrip("/")
    links = {"Kubeflow run": f"{page}/#/runs/details/{pipeline_run}"} if page else {}
    fields: dict[str, Any] = {"ending": "failed"}
    if isinstance(found, Outcome):
        links |= _mlflow_link(found, mlflow_url.rstrip("/"))
        fields = found.model_dump(exclude={"kind", "experiment_id", "mlflow_run_id"})
        fields["ending"] = found.kind
    elif found:
        fields |= {"reason": found.reason, "step": found.step}
    else:
        fields["reason"] = "no step stored a reason; check the run's pods and logs"
    return Message(run=run, pipeline_run=pipeline_run, links=links, **fields)


def message_text(message: Message) -> str:
    """Formats a message as a few lines of text."""
    where = f" in step {message.step}" if message.step else ""
    lines = [f"{message.run}: {_ENDINGS[message.ending]}{where}", message.reason]
    lines += [message.headline] if message.headline else []
    return "\n".join([*lines, *(f"{name}: {link}" for name, link in message.links.items())])


def payload(message: Message, form: str) -> Mapping[str, object]:
    """Builds the body of a webhook request in a format of `NotifySettings.form`."""
    text = message_text(message)
    if form == "slack":  # https://api.slack.com/reference/surfaces/formatting#escaping
        return {"text": html.escape(text, quote=False)}
    return {**message.model_dump(mode="json"), "text": text}


def _mlflow_link(outcome: Outcome, page: str) -> dict[str, str]:
    scheme, _, address = page.partition("://")
    if not (outcome.mlflow_run_id and scheme in ("http", "https")):
        return {}
    host = address.rpartition("@")[2]  # without user name and password
    place = f"experiments/{outcome.experiment_id}/runs/{outcome.mlflow_run_id}"
    return {"MLflow run": f"{scheme}://{host}/#/{place}"}
