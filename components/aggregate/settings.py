"""Settings of the aggregate step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class AggregateSettings(Config):
    """Settings of the report of a cross-validation.

    Attributes:
        overlay_volumes: Number of worst patients to draw.
        device: Device that predicts these; `auto` uses a GPU if there is one.
    """

    overlay_volumes: int = Field(4, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
