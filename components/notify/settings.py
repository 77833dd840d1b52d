"""Settings of notify."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config

Ending = Literal["unchanged", "promoted", "rejected", "failed"]


class NotifySettings(Config):
    """Who is told what. The webhook's address is a secret: `BRAINSEG_WEBHOOK_URL`.

    Attributes:
        form: `json` sends every value by its name, `slack` one text, as an incoming webhook of
            Slack, Mattermost or Rocket.Chat takes it.
        tell: The endings that people want to hear of.
        kubeflow_url: Kubeflow Pipelines' page as people open it, for the link to the run, e.g.
            `https://kubeflow.example/pipeline`.
        mlflow_url: MLflow's page as people open it; empty: `MLFLOW_TRACKING_URI`.
        timeout_s: How long the webhook may take to answer.
        attempts: How often it is tried.
    """

    form: Literal["json", "slack"] = "json"
    tell: tuple[Ending, ...] = ("unchanged", "promoted", "rejected", "failed")
    kubeflow_url: str = Field("", pattern="^(https?://.+)?$")
    mlflow_url: str = Field("", pattern="^(https?://.+)?$")
    timeout_s: float = Field(10, gt=0, le=60)
    attempts: int = Field(3, ge=1, le=10)
