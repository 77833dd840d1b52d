"""What people are told of a pipeline run."""

from collections.abc import Mapping

from components.notify.settings import Ending
from components.shared.config import Record
from components.shared.storage.outcome import Failure, Outcome

_ENDINGS: Mapping[Ending, str] = {
    "unchanged": "nothing to do",
    "promoted": "new champion",
    "rejected": "not promoted",
    "failed": "failed",
}


class Message(Record):
    """A pipeline run's ending, each value by its name.

    Attributes:
        run: What people call the pipeline run.
        pipeline_run: Its identity.
        ending: How it ended.
        reason: Why, in words.
        step: Which failed, where one told.
        dataset_id: What the source held.
        model: The version that was decided about.
        headline: Its score in words, with its interval.
        metrics: The same for machines.
        links: Where there is more, by what it is.
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
    """Puts together what is known.

    Args:
        run: What people call the pipeline run.
        pipeline_run: Its identity.
        found: What its steps left; `None` where they left nothing.
        kubeflow_url: Kubeflow Pipelines' page.
        mlflow_url: MLflow's page.
    """
    page = kubeflow_url.rstrip("/")
    links = {"Kubeflow run": f"{page}/#/runs/details/{pipeline_run}"} if page else {}
    if isinstance(found, Outcome):
        return Message(
            run=run,
            pipeline_run=pipeline_run,
            ending=found.kind,
            links=links | _mlflow_link(found, mlflow_url.rstrip("/")),
            **found.model_dump(include={"reason", "dataset_id", "model", "headline", "metrics"}),
        )
    if found is None:
        found = Failure(step="", reason="no step could tell why; look at the run's pods and logs")
    return Message(
        run=run,
        pipeline_run=pipeline_run,
        ending="failed",
        reason=found.reason,
        step=found.step,
        links=links,
    )


def tell(message: Message) -> str:
    """A message in a few lines of text."""
    where = f" in step {message.step}" if message.step else ""
    lines = [f"{message.run}: {_ENDINGS[message.ending]}{where}", message.reason]
    lines += [message.headline] if message.headline else []
    return "\n".join([*lines, *(f"{name}: {link}" for name, link in message.links.items())])


def payload(message: Message, form: str) -> Mapping[str, object]:
    """What the webhook gets.

    Args:
        message: What to tell.
        form: As in `NotifySettings.form`.
    """
    if form == "slack":
        return {"text": _escape(tell(message))}
    return {**message.model_dump(mode="json"), "text": tell(message)}


def _mlflow_link(outcome: Outcome, page: str) -> dict[str, str]:
    scheme, _, rest = page.partition("://")
    if not (outcome.mlflow_run_id and scheme in ("http", "https")):
        return {}
    host = rest.rpartition("@")[2]  # name and password may stand before it
    place = f"experiments/{outcome.experiment_id}/runs/{outcome.mlflow_run_id}"
    return {"MLflow run": f"{scheme}://{host}/#/{place}"}


def _escape(text: str) -> str:
    # https://api.slack.com/reference/surfaces/formatting#escaping
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
