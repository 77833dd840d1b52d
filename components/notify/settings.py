"""Settings of the notify step."""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from pydantic import Field

from components.shared.config import Config

Ending = Literal["unchanged", "promoted", "rejected", "predicted", "failed"]


class NotifySettings(Config):
    """Settings of messages; the webhook's address is the secret `BRAINSEG_WEBHOOK_URL`.

    Attributes:
        form: Format of the message. `json` sends all values by name; `slack` sends one text for
            incoming webhooks of Slack, Mattermost or Rocket.Chat.
        endings: Outcomes of a run that are reported to the webhook.
        kubeflow_url: Public address of the Kubeflow Pipelines UI, for the link to the run, e.g.
            `https://kubeflow.example/pipeline`.
        mlflow_url: Public address of the MLflow UI; empty for `MLFLOW_TRACKING_URI`.
        timeout_s: Time limit of an attempt in seconds.
        attempts: Largest number of attempts.
    """

    renamed: ClassVar[Mapping[str, str]] = {"tell": "endings"}

    form: Literal["json", "slack"] = "json"
    endings: tuple[Ending, ...] = get_args(Ending)
    kubeflow_url: str = Field("", pattern="^(https?://.+)?$")
    mlflow_url: str = Field("", pattern="^(https?://.+)?$")
    timeout_s: float = Field(10, gt=0, le=60)
    attempts: int = Field(3, ge=1, le=10)
